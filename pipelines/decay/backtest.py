"""`homefeed backtest`: cycles replayed as of then, by several settings of the gate at once.

Trainings, scores and comparisons are shared; each setting has champions and evidence of its own,
below `<workspace>/decay/<recipe digest>/<code digest>/backtest/`, and no registry or history hears
of them. What a decision was worth is seen on the next cycle's window, where challenger and champion
are compared once more. Not for the models (`pipelines.decay.lab`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import deletion, storage
from pipelines.contracts.artifacts import (
    AnchorWhy,
    FreshAnchor,
    ModelRef,
    ResolvedRun,
    Standing,
)
from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.config import RunConfig
from pipelines.contracts.decay import Backtest, Replayed, ReplayedGate
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Promoted, ServingCheck
from pipelines.contracts.progress import tracked
from pipelines.contracts.reasons import Interval
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.decay.lab import Lab, Made
from pipelines.registry import evidence
from pipelines.stages.compare_with_champion import judge, keep_evidence

if TYPE_CHECKING:
    from validation.model_gate.facts import Facts, Side

FEWEST_CYCLES = 2
_AFTERWARDS = {"margin", "recipe_margin", "seed_noise", "max_unpromoted_cycles"}
"""What of a gate is asked once all is measured; what the self-test plants is far beyond these."""


@dataclass
class Shared:
    """What the settings share: models by day, and what was found of them."""

    lab: Lab
    made: dict[datetime, Made]
    facts: "dict[Any, Facts]" = field(default_factory=dict)
    serving: dict[Any, ServingCheck] = field(default_factory=dict)

    def side(self, model: datetime, window: datetime) -> "Side":
        """Return the model of a day beside the snapshot of a day."""
        from validation.model_gate.facts import Side

        own, snapshot = self.made[model], self.made[window].snapshot
        ref = ModelRef(
            name=self.lab.recipe.recipe,
            version=f"{model:%Y-%m-%d}",
            mlflow_run_id="",
            as_of=model,
            bundle_digest=own.bundle_digest,
            snapshot_digest=own.snapshot.digest,
        )
        return Side(ref, Path(own.bundle_dir), snapshot, storage.local_path(snapshot.uri))

    def compared(
        self, config: RunConfig, champion: datetime | None, window: datetime
    ) -> "tuple[Facts, ServingCheck, Side, Side | None]":
        """Return challenger against champion on a window, once for gates that measure alike."""
        from training.bundle.serving_check import check_serving
        from validation.model_gate.facts import gather_facts

        mine = self.side(window, window)
        theirs = self.side(champion, window) if champion else None
        gate = config.model_gate.model_dump(mode="json", exclude=_AFTERWARDS)
        pair = (champion, window)
        if (key := (*pair, digest_of(gate))) not in self.facts:
            self.facts[key] = gather_facts(mine, theirs, config, scorer=self.lab.score)
        if pair not in self.serving:
            other = theirs.bundle_dir if theirs else None
            self.serving[pair] = check_serving(mine.bundle_dir, config.serving, other)
        return self.facts[key], self.serving[pair], mine, theirs

    def came(
        self, config: RunConfig, champion: datetime, challenger: datetime, window: datetime
    ) -> Interval | None:
        """Return what the challenger brought against the champion on a later window."""
        from training.data.reader import load_rows
        from validation.model_gate.comparison import Holdout
        from validation.model_gate.intervals import change_estimate

        place = (own := self.made[window].snapshot), storage.local_path(own.uri), SPLIT_HOLDOUT
        holdout = Holdout(load_rows(*place), config.features.heads, config.model_gate)
        ours, theirs = (
            holdout.cells.sums(holdout.hits(scores.ranking_score, holdout.target_head.name))
            for scores in (
                self.lab.score(Path(self.made[model].bundle_dir), *place, own.features.head_names)
                for model in (challenger, champion)
            )
        )
        found = change_estimate(ours, theirs, holdout.cells)
        return found.interval(config.model_gate.confidence) if found else None


def backtest(lab: Lab, gates: Mapping[str, RunConfig]) -> Backtest:
    """Replay the lab's days by each gate, and say what each would have promoted.

    Raises:
        ConfigurationError: a gate is of another recipe, or too few days are left.
        RunInProgressError: another backtest or decay lab of the recipe is at work.
        HomefeedError: as building a snapshot, training and comparing raise.
    """
    for name, config in gates.items():
        if config.recipe_digest != lab.recipe.recipe_digest:
            raise ConfigurationError(
                f"gate {name} changes more than model_gate: its recipe is "
                f"{config.recipe_digest[:12]}, expected {lab.recipe.recipe_digest[:12]} as "
                f"{lab.recipe.reference}; a gate is a recipe file that extends that one"
            )
    with lab.locked():
        shared = Shared(lab, lab.make(FEWEST_CYCLES))
        found = [_replay(shared, name, gates[name]) for name in tracked(list(gates), "gates")]
    made = Backtest(
        recipe=lab.recipe.reference,
        code_digest=code_digest(),
        target_metric=lab.recipe.model_gate.target_metric,
        measured_at=datetime.now(UTC),
        gates=tuple(found),
        left_out=tuple(lab.left_out),
    )
    storage.write_model((lab.folder / "backtest.json").as_uri(), made)
    return made


def _replay(shared: Shared, name: str, config: RunConfig) -> ReplayedGate:
    """Return what one gate decides, cycle by cycle, with champions and evidence of its own."""
    place = (
        shared.lab.work / "backtest" / digest_of([name, config.model_dump(mode="json")])[:16]
    ).as_uri()
    deletion.remove(place)
    champion: datetime | None = None
    since: datetime | None = None
    cycles, days = [], list(shared.made)
    for as_of, following in zip(days, [*days[1:], None], strict=True):
        facts, serving, mine, theirs = shared.compared(config, champion, as_of)
        run = _run(shared, config, as_of, place, theirs.model if theirs else None, since)
        known = evidence.read(run.judged_before)
        pooled, fresh = evidence.pool_facts(run, known, facts), FreshAnchor(why=AnchorWhy.SAME)
        line = evidence.line_before(run, known)
        judgement = judge(run, pooled, (mine, theirs, None), fresh, line, serving)
        keep_evidence(run, pooled, judgement, fresh, as_of)
        is_promoted = judgement.verdict.promoted is Promoted.CHALLENGER
        came = None
        if champion and following:
            came = shared.came(config, champion, as_of, following)
        cycles.append(
            Replayed(
                as_of=as_of,
                champion=champion,
                decision=str(judgement.verdict.decision),
                reasons=judgement.verdict.reasons,
                is_promoted=is_promoted,
                came=came,
            )
        )
        if is_promoted:
            champion = since = as_of
    return ReplayedGate(name=name, cycles=tuple(cycles))


def _run(
    shared: Shared,
    config: RunConfig,
    as_of: datetime,
    place: str,
    champion: ModelRef | None,
    since: datetime | None,
) -> ResolvedRun:
    """Return the cycle of a day as one gate's own workspace would have resolved it."""
    settings, name = shared.lab.settings, config.recipe
    judged = evidence.pin(place, name, but="")
    standing = Standing(
        anchor=config if champion else None,
        champion_since=since,
        unpromoted=evidence.unpromoted_days(evidence.read(judged), since),
    )
    return ResolvedRun(
        run_id=f"{as_of:%Y-%m-%d}",
        run_uri=storage.join(place, "runs", f"{as_of:%Y-%m-%d}"),
        as_of=as_of,
        config=config,
        code_version=code_version(),
        event_log_uri=storage.to_uri(settings.event_log_location),
        workspace_uri=place,
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        registered_model=name,
        champion=champion,
        last_accepted_snapshot_uri=None,
        standing=standing,
        judged_before=judged,
        may_promote=True,
        num_devices=1,
        trigger="backtest",
    )
