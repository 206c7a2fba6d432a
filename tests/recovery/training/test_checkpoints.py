from pathlib import Path

import torch

from mpq.recovery.training.checkpoints import Checkpoints


def saved(folder: Path, key: str = "key", steps: tuple[int, ...] = (1, 2, 10)) -> Checkpoints:
    made = Checkpoints(folder, key)
    for step in steps:
        made.save(step, {"step": step, "list": [1.5]}, {"now:a": torch.full((2,), float(step))})
    return made


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    made = saved(tmp_path / "c")
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["step-10.safetensors", "step-2.safetensors"]
    found = made.newest()
    assert found is not None
    assert found.facts == {"step": 10, "list": [1.5]}
    assert torch.equal(found.tensors["now:a"], torch.tensor([10.0, 10.0]))


def test_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    made = saved(tmp_path)
    path = tmp_path / "step-10.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    found = made.newest()
    assert found is not None
    assert found.facts["step"] == 2
    (tmp_path / "step-2.safetensors").write_bytes(b"x")
    assert made.newest() is None


def test_those_of_another_run_are_not_read(tmp_path: Path) -> None:
    saved(tmp_path)
    assert Checkpoints(tmp_path, "other").newest() is None
    assert Checkpoints(tmp_path / "none", "key").newest() is None


def test_they_can_be_removed(tmp_path: Path) -> None:
    made = saved(tmp_path / "c")
    made.remove()
    assert not (tmp_path / "c").exists()
    made.remove()
