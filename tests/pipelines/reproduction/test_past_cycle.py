"""The stages that are rebuilt of a past cycle, in the order in which their models were registered.

How a record is read, and what of it is refused, is shown with the command
(tests/pipelines/cli/test_reproduce.py).
"""

from datetime import UTC, datetime
from pathlib import Path

from pipelines.contracts.run_layout import StageRecord
from pipelines.reproduction.past_cycle import REBUILT, PastCycle
from support.runs import make_run


def test_the_model_that_was_registered_first_is_trained_first(tmp_path: Path) -> None:
    run = make_run(tmp_path)

    def past(**artifacts: dict) -> PastCycle:
        same = {"input_digest": "i", "wall_s": 1, "finished_at": datetime(2026, 1, 1, tzinfo=UTC)}
        found = {n: StageRecord(stage=n, artifact=a, **same) for n, a in artifacts.items()}
        return PastCycle(run.run_uri, run, found, None)

    data = {"build_snapshot": {}, "check_snapshot": {}, "compare_with_champion": {}}
    challenger = {"model": {"version": "12"}}
    whole = past(**data, train_challenger=challenger, train_anchor={"trained": None})
    assert whole.stages_until("compare_with_champion") == REBUILT
    anchor = {"trained": {"model": {"version": "9"}}}
    other = past(**data, train_challenger=challenger, train_anchor=anchor)
    assert other.stages_until("train_challenger")[2:] == ("train_anchor", "train_challenger")
    assert other.stages_until("train_anchor")[2:] == ("train_anchor",)
    assert other.stages_until("build_snapshot") == ("build_snapshot",)
    assert other.stages_to_tell_of("train_challenger") == REBUILT[:4]
    assert other.stages_to_tell_of("train_anchor") == (*REBUILT[:2], "train_anchor")
    without = past(**data, train_challenger=challenger)
    assert without.stages_to_tell_of("train_anchor") == REBUILT[:4]
    assert without.stages_to_tell_of("train_challenger") == REBUILT[:3]
