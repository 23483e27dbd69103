"""What a stage's artifact says that is worth a metric: rows, bytes, the verdict, who serves.

Each kind of artifact has one function here. Nothing is measured and nothing is sent here.

Tested in tests/pipelines/metrics/test_facts.py.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import singledispatch

from pipelines.contracts.artifacts import (
    Challenger,
    DataReport,
    FileDigest,
    FreshAnchor,
    ModelRef,
    ResolvedRun,
    Snapshot,
)
from pipelines.contracts.base import Artifact
from pipelines.contracts.judgement import Decision, Judgement, Promoted, Promotion
from pipelines.metrics import instruments
from pipelines.metrics.instruments import DIRECTION, MODEL, RECIPE, ROW, VERDICT, Point


@dataclass(frozen=True)
class Done:
    """A stage that has just done its work."""

    run: ResolvedRun
    inputs: tuple[Artifact, ...]  # What it was given.
    now: datetime  # The wall clock, for the champion's age.
    attempt: dict[str, str | bool]  # What all points about an attempt carry.

    @property
    def cycle(self) -> dict[str, str | bool]:
        """What all points about a cycle's result carry."""
        return {RECIPE: self.run.config.reference, MODEL: self.run.registered_model}

    def rows(self, direction: str, **counts: int) -> Iterator[Point]:
        """Yield how many rows of each kind were read or written."""
        for kind, count in counts.items():
            about = {**self.attempt, ROW: kind, DIRECTION: direction}
            yield Point(instruments.STAGE_ROWS, count, about)

    def size(self, direction: str, files: Iterable[FileDigest]) -> Point:
        """Return how many bytes were read or written."""
        num_bytes = sum(file.num_bytes for file in files)
        return Point(instruments.STAGE_BYTES, num_bytes, {**self.attempt, DIRECTION: direction})

    def champion(self, model: ModelRef) -> Iterator[Point]:
        """Yield how old the model is that serves."""
        about: dict[str, str | bool] = {MODEL: self.run.registered_model}
        yield Point(instruments.CHAMPION_AS_OF, model.as_of.timestamp(), about)
        yield Point(instruments.CHAMPION_AGE, (self.now - model.as_of).total_seconds(), about)


def points_of(artifact: Artifact, done: Done) -> list[Point]:
    """Return what the artifact says; one of a kind that is not known here says nothing."""
    given = [each for each in done.inputs if isinstance(each, Snapshot)]
    return [*_points(artifact, done), *(done.size("read", snapshot.files) for snapshot in given)]


@singledispatch
def _points(artifact: Artifact, done: Done) -> Iterator[Point]:
    yield from ()


@_points.register
def _of_run(artifact: ResolvedRun, done: Done) -> Iterator[Point]:
    # In a backfill the champion of the run is the one before as_of, and another model serves.
    if serving := artifact.later_champion or artifact.champion:
        yield from done.champion(serving)


@_points.register
def _of_snapshot(artifact: Snapshot, done: Done) -> Iterator[Point]:
    yield from done.rows(
        "write",
        example=artifact.num_examples,
        request=artifact.num_requests,
        action=sum(shard.num_actions for shard in artifact.shards),
        user=sum(shard.num_users for shard in artifact.shards),
        pin=artifact.num_pins,
    )
    yield done.size("write", artifact.files)


@_points.register
def _of_report(artifact: DataReport, done: Done) -> Iterator[Point]:
    for snapshot in done.inputs:
        if isinstance(snapshot, Snapshot):
            yield from done.rows(
                "read", example=snapshot.num_examples, request=snapshot.num_requests
            )


@_points.register
def _of_challenger(artifact: Challenger, done: Done) -> Iterator[Point]:
    yield from done.rows("read", example=artifact.num_training_examples)
    yield done.size("write", artifact.bundle_files)


@_points.register
def _of_anchor(artifact: FreshAnchor, done: Done) -> Iterator[Point]:
    if artifact.trained:
        yield from _of_challenger(artifact.trained, done)


@_points.register
def _of_judgement(artifact: Judgement, done: Done) -> Iterator[Point]:
    from validation.model_gate.examine import void_reasons

    facts, verdict, run = artifact.comparison, artifact.verdict, done.run
    yield from done.rows(
        "read", example=facts.num_examples, request=facts.num_requests, user=facts.num_users
    )
    for decision in Decision:
        about = {**done.cycle, VERDICT: str(decision)}
        yield Point(instruments.VERDICT_STATE, int(decision is verdict.decision), about)
    yield Point(instruments.VERDICTS, 1, {**done.cycle, VERDICT: str(verdict.decision)})
    is_void = bool(void_reasons(facts, run.config.model_gate, run.config.features.heads))
    yield Point(instruments.COMPARISON_VOID, int(is_void), done.cycle)
    if run.may_promote:
        judged = {*run.standing.unpromoted, run.as_of}
        num_unpromoted = len(judged) if verdict.promoted is Promoted.NONE else 0
        yield Point(instruments.UNPROMOTED_CYCLES, num_unpromoted, {MODEL: run.registered_model})


@_points.register
def _of_promotion(artifact: Promotion, done: Done) -> Iterator[Point]:
    if artifact.is_promoted:
        yield Point(instruments.PROMOTIONS, 1, done.cycle)
    if artifact.champion_after:
        yield from done.champion(artifact.champion_after)
