"""What the stages of a cycle used, from their manifests, and of the cycles before it.

Tested in tests/pipelines/cycles/test_costs.py.
"""

import logging
from collections.abc import Sequence

from pipelines import storage
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.contracts.judged.cycle import CycleCosts, CycleRecord, StageCost
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.run_layout import CYCLE_INDEX, StageRecord, manifest_uri
from pipelines.registry.evidence import JudgedCycle

log = logging.getLogger(__name__)

FROM_A_PAGE = f"../../../../{CYCLE_INDEX}"
"""The index, from a verdict page: <workspace>/runs/<run>/<stage>/<output>/<page>."""
BEFORE_JUDGING = STAGES[: STAGES.index("compare_with_champion")]
NUM_EARLIER = 5
"""How many cycles a cycle's costs are held against."""


def costs_of(run_id: str, records: Sequence[StageRecord]) -> CycleCosts:
    """Return what stages used that have ended."""
    return CycleCosts(
        run_id=run_id,
        stages=tuple(
            StageCost(
                stage=record.stage,
                wall_s=record.wall_s,
                finished_at=record.finished_at,
                usage=record.usage,
            )
            for record in records
        ),
    )


def records_of(run_uri: str) -> list[StageRecord]:
    """Return the manifests of a run, in the order of the stages; none of a stage not ended.

    Raises:
        DataContractError: one is damaged or was edited.
        TransientStorageError: the storage failed.
    """
    found = []
    for stage in STAGES:
        uri = manifest_uri(run_uri, stage)
        try:
            record = storage.read_model(uri, StageRecord)
        except FileNotFoundError:
            continue
        if record.stage != stage or not record.is_sound():
            raise DataContractError(
                f"{uri} was edited: its seal does not fit what it says; expected it as {stage} "
                f"wrote it; put that file back"
            )
        found.append(record)
    return found


def record_of(
    run: ResolvedRun, cycles: Sequence[JudgedCycle], comparison: Comparison
) -> CycleRecord:
    """Return what a verdict page says of its cycle, as far as that can be read.

    It is the same whenever the cycle is judged, so that an attempt which follows a killed one
    writes the same page.

    Args:
        run: The cycle that is judged.
        cycles: What it has pinned of earlier cycles.
        comparison: What was found.
    """
    found = _costs_at(run.run_id, run.run_uri)
    early = tuple(each for each in found.stages if each.stage in BEFORE_JUDGING)
    costs = found.model_copy(update={"stages": early})
    return CycleRecord(
        began_at=costs.began_at,
        trained_at=max((each.finished_at for each in early), default=None),
        costs=costs,
        earlier=costs_before(run, cycles),
        is_void=is_void(run, comparison),
        index_href=FROM_A_PAGE,
    )


def is_void(run: ResolvedRun, comparison: Comparison) -> bool:
    """Return whether nothing follows from a cycle's comparison, whatever its numbers are."""
    from validation.model_gate.examine import void_reasons

    config = run.config
    return bool(void_reasons(comparison, config.model_gate, config.features.heads))


def costs_before(run: ResolvedRun, cycles: Sequence[JudgedCycle]) -> tuple[CycleCosts, ...]:
    """Return the costs of the newest judged cycles that the run knows of, the newest first.

    Args:
        run: The cycle. Those of other recipes cost other amounts, and are not compared with.
        cycles: What it has pinned of earlier cycles.
    """
    own = run.config.recipe_digest
    alike = [each for each in cycles if each.challenger_recipe == own and each.as_of < run.as_of]
    alike.sort(key=lambda each: (each.as_of, each.run_id), reverse=True)
    newest = list({each.run_id: each for each in alike}.values())[:NUM_EARLIER]
    found = (_costs_at(each.run_id, each.run_uri) for each in newest)
    return tuple(each for each in found if each.stages)


def _costs_at(run_id: str, run_uri: str) -> CycleCosts:
    try:
        return costs_of(run_id, records_of(run_uri))
    except HomefeedError as error:  # The page of a verdict does not fail for what it cost.
        log.warning("what %s cost is not told: %s", run_id, error)
        return CycleCosts(run_id=run_id)
