"""`mpq eval` and the plan of the artifact."""

from pathlib import Path

from tests.cli.typed import done, typed


def test_eval_compares_with_the_held_out_error_of_the_plan(folder: Path) -> None:
    (artifact,) = folder.glob("*.mpq.safetensors")
    line = f"eval {artifact.name} --data test.pt --num-samples 32"
    assert "times the" not in done(line).err
    text = (folder / "plan.yaml").read_text()
    value = text.split("held_out: ")[2].split("\n")[0]
    (folder / "plan.yaml").write_text(text.replace(f"held_out: {value}", "held_out: 1.0e-09", 2))
    assert "on the held-out samples of plan.yaml" in done(line).err
    (folder / "plan.yaml").rename(folder / "moved.txt")
    assert "times the" not in done(line).err
    assert "on the held-out samples of moved.txt" in done(f"{line} --plan moved.txt").err
    (folder / "moved.txt").write_text(text.replace("int8", "fp16").replace("int4", "int8"))
    ran = typed(f"{line} --plan moved.txt")
    assert (ran.code, ran.out) == (3, "")
    assert f"moved.txt is not the plan of {artifact.name}: its model or schemes differ" in ran.err
