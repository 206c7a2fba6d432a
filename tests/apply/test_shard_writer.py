from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mpq.apply.shard_job import apply_shards
from mpq.apply.shard_plan import planned_shards
from mpq.apply.shard_writer import write_shard
from mpq.models.sources.checkpoint_files import checkpoint_files
from mpq.tensors.quantizers.registry import quantizer_named
from tests.apply.test_shard_job import checkpoint, plan


def test_one_file_has_the_bytes_that_it_has_among_the_others(tmp_path: Path) -> None:
    source, wanted = checkpoint(tmp_path / "model"), plan()
    whole = apply_shards(source, wanted, tmp_path / "whole")
    (tmp_path / "one").mkdir()
    shards = planned_shards(source, checkpoint_files(source), wanted, tmp_path / "one")
    with ThreadPoolExecutor(2) as pool:
        write_shard(shards[1], quantizer_named(wanted.quantizer), pool)
    assert [path.name for path in (tmp_path / "one").iterdir()] == [shards[1].output.name]
    assert shards[1].output.read_bytes() == whole.files[1].read_bytes()
