"""The run that is rebuilt elsewhere: the same cycle, on this machine. See also test_rebuild."""

from pathlib import Path

from pipelines.reproduction.scratch import _moved
from support.runs import make_run


def test_a_cycle_of_several_machines_is_rebuilt_by_as_many_processes_of_this_one(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, num_devices=2, num_nodes=3, work_folder="/trainings")
    moved, _ = _moved(run, tmp_path / "rebuilt", "")
    assert (moved.num_devices, moved.num_nodes, moved.work_folder) == (6, 1, "")
    assert moved.run_uri.startswith(f"file://{tmp_path}/rebuilt/")
