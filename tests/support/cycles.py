"""What a cycle has published, read back from its workspace, for the tests of the whole."""

from pathlib import Path

from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.cycle import CycleFacts
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.cycles.reading import find_cycle
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact


def cycle_of(home: Path, trigger: str) -> CycleFacts:
    found = find_cycle(str(home / "workspace"), trigger, Settings())
    assert found is not None and not found.next_stage, f"{trigger} has not published every stage"
    return found


def judgement_of(home: Path, trigger: str) -> Judgement:
    return read_artifact(cycle_of(home, trigger).run_uri, "compare_with_champion", Judgement)


def promotion_of(home: Path, trigger: str) -> Promotion:
    return read_artifact(cycle_of(home, trigger).run_uri, "promote_challenger", Promotion)


def states_expected(home: Path, trigger: str) -> dict[str, str]:
    """Return the tasks' states of a cycle that ended well, as what it published asks for."""
    told = read_artifact(cycle_of(home, trigger).run_uri, "alert", AlertReceipt)
    has_work = {
        "promote_challenger": promotion_of(home, trigger).is_promoted,
        "alert": told.alert is not None,
    }
    return {name: "success" if has_work.get(name, True) else "skipped" for name in STAGES}
