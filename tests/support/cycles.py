"""What a cycle has published, read back from its workspace, for the tests of the whole."""

from pathlib import Path

from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.judged.alert import AlertReceipt
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.local.summary import CycleOutcome, find_finished_run


def outcome_of(home: Path, run_id: str) -> CycleOutcome:
    found = find_finished_run(str(home / "workspace"), run_id)
    assert found is not None, f"{run_id} has not published every stage"
    return found


def judgement_of(home: Path, run_id: str) -> Judgement:
    record = outcome_of(home, run_id).records["compare_with_champion"]
    return Judgement.model_validate(record.artifact)


def promotion_of(home: Path, run_id: str) -> Promotion:
    record = outcome_of(home, run_id).records["promote_challenger"]
    return Promotion.model_validate(record.artifact)


def states_expected(home: Path, run_id: str) -> dict[str, str]:
    """Return the tasks' states of a cycle that ended well, as what it published asks for."""
    told = AlertReceipt.model_validate(outcome_of(home, run_id).records["alert"].artifact)
    has_work = {
        "promote_challenger": promotion_of(home, run_id).is_promoted,
        "alert": told.alert is not None,
    }
    return {name: "success" if has_work.get(name, True) else "skipped" for name in STAGES}
