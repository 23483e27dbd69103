"""What a cycle has published, read back from its workspace, for the tests of the whole."""

from pathlib import Path

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
