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
from pipelines.contracts.artifacts import AnchorWhy, FreshAnchor, ModelRef, ResolvedRun, Standing
from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.config import RunConfig
from pipelines.contracts.decay import Backtest, Replayed, ReplayedGate
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import digest_files, digest_of_files
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
        shared = _Shared(lab, lab.make(FEWEST_CYCLES))
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


@dataclass
class _Shared:
    """What the gates share: models by day, and what was found of them."""

    lab: Lab
    made: dict[datetime, Made]
    found: dict[Any, Any] = field(default_factory=dict)  # By what was asked.

    def side(self, model: datetime, window: datetime) -> "Side":
        """Return the model of a day beside the snapshot of a day."""
        from validation.model_gate.facts import Side

        own, snapshot = self.made[model], self.made[window].snapshot
        bundle_dir = Path(own.bundle_dir)
        ref = ModelRef(
            name=self.lab.recipe.recipe,
            version=f"{model:%Y-%m-%d}",
            mlflow_run_id="",
            as_of=model,
            bundle_digest=digest_of_files(digest_files(bundle_dir)),
            snapshot_digest=own.snapshot.digest,
        )
        snapshot_dir = storage.local_path(snapshot.uri)
        return Side(ref, bundle_dir, snapshot, snapshot_dir, self.lab.scores_dir)

    def compared(
        self, config: RunConfig, mine: "Side", theirs: "Side | None"
    ) -> "tuple[Facts, ServingCheck]":
        """Return challenger against champion, once for gates that measure alike."""
        from training.bundle.serving_check import check_serving
        from validation.model_gate.facts import gather_facts

        gate, champion_dir = config.model_gate, theirs.bundle_dir if theirs else None
        asked = digest_of(gate.model_dump(mode="json", exclude=_AFTERWARDS))
        measured, served = (
            (mine.bundle_dir, champion_dir, each) for each in (asked, config.serving)
        )
        if measured not in self.found:
            self.found[measured] = gather_facts(mine, theirs, config)
        if served not in self.found:  # The gate is no part of it.
            self.found[served] = check_serving(mine.bundle_dir, config.serving, champion_dir)
        return self.found[measured], self.found[served]

    def came(
        self, config: RunConfig, champion: datetime, challenger: datetime, window: datetime
    ) -> Interval | None:
        """Return what the challenger brought against the champion on a later window."""
        from training.data.reader import load_rows
        from validation.model_gate.comparison import Holdout
        from validation.model_gate.intervals import change_estimate

        sides = self.side(challenger, window), self.side(champion, window)
        rows = load_rows(sides[0].snapshot, sides[0].snapshot_dir, SPLIT_HOLDOUT)
        holdout = Holdout(rows, config.features.heads, config.model_gate)
        scores = (side.score(config.features.head_names).ranking_score for side in sides)
        head, cells = holdout.target_head.name, holdout.cells
        ours, theirs = (cells.sums(holdout.hits(each, head)) for each in scores)
        found = change_estimate(ours, theirs, cells)
        return found.interval(config.model_gate.confidence) if found else None


def _replay(shared: _Shared, name: str, config: RunConfig) -> ReplayedGate:
    """Return what one gate decides, cycle by cycle, with champions and evidence of its own."""
    key = digest_of([name, config.model_dump(mode="json")])[:16]
    place = (shared.lab.work / "backtest" / key).as_uri()
    deletion.remove(place)  # Of a replay before: this one decides anew.
    champion: datetime | None = None
    cycles, days, fresh = list[Replayed](), list(shared.made), FreshAnchor(why=AnchorWhy.SAME)
    for as_of, following in zip(days, [*days[1:], None], strict=True):
        mine, theirs = shared.side(as_of, as_of), None
        if champion:
            theirs = shared.side(champion, as_of)
        facts, serving = shared.compared(config, mine, theirs)
        run = _run(shared.lab, config, as_of, place, theirs.model if theirs else None)
        known = evidence.read(run.judged_before)
        pooled, line = evidence.pool_facts(run, known, facts), evidence.line_before(run, known)
        judgement = judge(run, pooled, (mine, theirs, None), fresh, line, serving)
        keep_evidence(run, pooled, judgement, fresh, as_of)
        verdict, came = judgement.verdict, None
        if champion and following:
            came = shared.came(config, champion, as_of, following)
        cycle = Replayed(
            as_of=as_of,
            champion=champion,
            decision=str(verdict.decision),
            reasons=verdict.reasons,
            is_promoted=verdict.promoted is Promoted.CHALLENGER,
            came=came,
        )
        cycles.append(cycle)
        champion = as_of if cycle.is_promoted else champion
    return ReplayedGate(name=name, cycles=tuple(cycles))


def _run(
    lab: Lab, config: RunConfig, as_of: datetime, place: str, champion: ModelRef | None
) -> ResolvedRun:
    """Return the cycle of a day as one gate's own workspace would have resolved it."""
    since = champion.as_of if champion else None
    judged = evidence.pin(place, config.recipe, but="")
    standing = Standing(
        anchor=config if champion else None,
        champion_since=since,
        unpromoted=evidence.unpromoted_days(evidence.read(judged), 0, since),
    )
    return ResolvedRun(
        run_id=f"{as_of:%Y-%m-%d}",
        run_uri=storage.join(place, "runs", f"{as_of:%Y-%m-%d}"),
        as_of=as_of,
        config=config,
        code_version=code_version(),
        event_log_uri=lab.settings.event_log_uri,
        workspace_uri=place,
        tracking_uri=lab.settings.tracking_uri,
        experiment=lab.settings.experiment,
        registered_model=config.recipe,
        champion=champion,
        last_accepted_snapshot_uri=None,
        standing=standing,
        judged_before=judged,
        may_promote=True,
        num_devices=1,
        trigger="backtest",
    )
