"""What a person should do after a cycle, as one sentence and commands that work when pasted.

The alert, the verdict page and the command line all say what is composed here, so that they never
disagree. Not for the rest of an alert (`pipelines.alerts.compose`), nor for how a command is
spelled (`pipelines.alerts.commands`).
"""

from datetime import timedelta
from typing import Any

from pipelines.alerts.commands import (
    Command,
    accept_command,
    accept_shift_command,
    cycle_command,
    force_command,
    rebuild_command,
    release_command,
    rollback_command,
    runnable,
    serving_command,
    stage_command,
)
from pipelines.contracts.artifacts import STAGES, ResolvedRun, RunRequest
from pipelines.contracts.errors import (
    BUNDLE_MISSING,
    DataContractError,
    HomefeedError,
    PromotionRefusedError,
    SnapshotDamagedError,
)
from pipelines.contracts.judged.alert import NextStep
from pipelines.contracts.judgement import Decision, Judgement, Promoted, Promotion
from pipelines.contracts.run_layout import StageFailure
from pipelines.contracts.stage_table import TABLE
from pipelines.settings import Settings

Offered = tuple[str, Command]
"""What a command is for, and the command."""


def step(sentence: str, *offered: Offered) -> NextStep:
    """Return a next step whose commands work in every folder of this machine."""
    made = tuple((purpose, runnable(command)) for purpose, command in offered)
    return NextStep(sentence=sentence, commands=made)


def ask_who_serves(places: ResolvedRun | Settings) -> Offered:
    """Return the question that every message may end with."""
    return "Which model serves now?", serving_command(places)


def what_serves(run: ResolvedRun) -> str:
    """Say which model serves where this cycle promotes none."""
    champion = run.later_champion or run.champion
    if champion is None:
        return "There is no champion yet."
    return f"{champion.label} (as_of {champion.as_of:%Y-%m-%d}) stays champion."


def what_was_promoted(promotion: Promotion) -> str:
    """Say what a cycle did to the champion. What serves now, only `homefeed serving` knows."""
    if promotion.is_promoted and promotion.champion_after is not None:
        return f"this cycle promoted {promotion.champion_after.label}"
    return "this cycle promoted nothing"


def new_cycle_command(run: ResolvedRun, **changes: Any) -> Command:
    """Return the command of a cycle like this one, with a key of its own.

    Another key is another cycle, in which nothing counts as done.
    """
    return cycle_command(run.to_request(), run, trigger=f"again-{run.run_id}", **changes)


def after_verdict(run: ResolvedRun, judgement: Judgement) -> NextStep:
    """Return what the pipeline does after a verdict, and what a person may do."""
    promoted, stays = judgement.promoted_model, what_serves(run)
    # Where nothing served before the cycle, nobody needs to ask.
    serving = () if (run.later_champion or run.champion) is None else (ask_who_serves(run),)
    if judgement.verdict.promoted is Promoted.NONE:
        return _after_no_promotion(run, judgement, serving)
    assert promoted is not None  # Only a model that was compared is promoted.
    if run.may_promote:
        told = f"The pipeline makes {promoted.label} the champion, unless the champion has changed."
        if judgement.verdict.promoted is Promoted.ANCHOR:
            told = (
                f"{told} It is the accepted recipe made fresh; "
                f"{judgement.comparison.challenger_model.label} stays in the registry."
            )
        if run.champion is None:
            return step(told, ask_who_serves(run))
        # The versions are named: what `rollback` alone does depends on what serves by then.
        back = rollback_command(run, run.champion.version, promoted.version)
        return step(told, ask_who_serves(run), (f"Go back to {run.champion.label}:", back))
    if run.later_champion is not None:
        told = f"This run may not promote, and no run as of {run.as_of:%Y-%m-%d} could."
        return step(f"{stays} {told}", *serving)
    return step(
        f"{stays} This run may not promote: it is a backfill, or promotion was switched off.",
        *serving,
        ("Run the cycle again, allowed to promote:", new_cycle_command(run, may_promote=True)),
    )


def _after_no_promotion(
    run: ResolvedRun, judgement: Judgement, serving: tuple[Offered, ...]
) -> NextStep:
    stays, challenger = what_serves(run), judgement.comparison.challenger_model.label
    if judgement.problem:
        serving += (("Name the accepted recipe:", accept_command(run)),)
    elif run.standing.hold:
        serving += (("Let the recipe be promoted again:", release_command(run)),)
    elif _is_long(run):
        stays = (
            f"{stays} Nothing was promoted in {_num_unpromoted(run)} cycles, and the champion "
            f"ages: somebody has to decide."
        )
        serving += (
            ("Promote this challenger in spite of the verdict:", force_command(run)),
            ("Accept this run's recipe, so that later ones are held to it:", accept_command(run)),
        )
    if judgement.verdict.decision is Decision.REJECT:
        return step(
            f"{stays} {challenger} stays in the registry and is not promoted. Once the data or the "
            f"code is mended, a new cycle on the same day tells whether that helped.",
            *serving,
            ("After a fix of data or code:", new_cycle_command(run)),
        )
    return _ask_fresh_data(run, stays, serving)


def _ask_fresh_data(run: ResolvedRun, stays: str, serving: tuple[Offered, ...]) -> NextStep:
    """Name the first as_of whose holdout shares no request with this one, and its command.

    The same holdout is not asked again: trying until it agrees would make chance the judge.
    """
    from pipelines.event_log.log_files import open_event_log

    as_of = run.as_of + timedelta(days=run.config.snapshot.holdout_days)
    purpose = f"Once the event log holds every day before {as_of:%Y-%m-%d}:"
    try:
        last_day = open_event_log(run.event_log_uri).span("impressions")[1]
        covered = f"the event log does not cover it yet: it ends on {last_day}"
        if last_day >= as_of.date() - timedelta(days=1):
            covered, purpose = "the event log covers it", "Compare on a fresh holdout:"
    except HomefeedError:  # advice is also given while the event log cannot be reached
        covered = "whether the event log covers it could not be read now"
    return step(
        f"{stays} {as_of:%Y-%m-%d} is the first as_of whose holdout shares no request with this "
        f"one, and {covered}.",
        *serving,
        (purpose, new_cycle_command(run, as_of=as_of)),
    )


def needs_somebody(run: ResolvedRun, judgement: Judgement) -> bool:
    """Return whether a person has to decide something before a cycle like this one promotes."""
    is_nothing = judgement.verdict.promoted is Promoted.NONE
    return is_nothing and bool(judgement.problem or run.standing.hold or _is_long(run))


def _is_long(run: ResolvedRun) -> bool:
    return run.may_promote and _num_unpromoted(run) >= run.config.model_gate.max_unpromoted_cycles


def _num_unpromoted(run: ResolvedRun) -> int:
    return len({*run.standing.unpromoted, run.as_of})


def after_failure(run: ResolvedRun, stage: str, failure: StageFailure | None) -> NextStep:
    """Return how a broken run is mended.

    Args:
        run: The cycle.
        stage: The stage that failed, one of `artifacts.STAGES`, or another task of Airflow's.
        failure: What the stage wrote; None when it was killed before it could.
    """
    if stage not in STAGES:  # The question to people is Airflow's own.
        return step(
            f"Mend what its log names, then clear {stage} in Airflow, with what is after it: the "
            f"run goes on from there, and an answer that was given stays. Where the log says that "
            f"another verdict was shown, begin another cycle with the command that it gives."
        )
    run_again = stage_command(stage, run.run_uri)
    again, anew = ("Run the failed stage again:", run_again), new_cycle_command(run)
    left = "Run what is left of the cycle (in Airflow, clear the failed task instead):"
    rest: tuple[Offered, ...] = ((left, cycle_command(run.to_request(), run)),)
    if stage in ("promote_challenger", "alert"):
        rest += (ask_who_serves(run),)
    told, offered = "Mend what the message names, then run the stage again.", (again, *rest)
    is_judging = TABLE[stage].is_judging
    if failure is None:
        told = "Look at the end of the stage's log, then run the stage again."
    elif failure.error_class == SnapshotDamagedError.__name__:
        told = (
            "Build the snapshot again from the event log, which gives the same files, then run the "
            "failed stage again."
        )
        offered = (("Build the snapshot again:", rebuild_command(run.run_uri)), *offered)
    elif failure.acceptable:  # The data gate has refused what a person may accept.
        accept = tuple(
            (f"If the data are right, accept {name}:", accept_shift_command(run.run_uri, name))
            for name in failure.acceptable
        )
        right = "if the data are right, accept them"
        told = f"Mend the event log or, {right}; then run the stage again."
        offered = (*accept, *offered)
        if stage != "build_snapshot":  # That one reads the event log as it is by then.
            told = f"Mend the event log and start a new cycle or, {right} and run the stage again."
            mended = ("Once the event log is mended, start a new cycle:", anew)
            offered = (mended, *accept, ("After that, run the failed stage again:", run_again))
            offered += rest
    elif BUNDLE_MISSING in failure.about and is_judging:
        told = (
            "Put the files back, then run the failed stage again. Where they are lost, roll back "
            "to a version that has its files, then start a new cycle, which is compared with that."
        )
        offered += (("After a rollback, start a new cycle on the same day:", anew),)
    elif failure.exit_code == PromotionRefusedError.exit_code or (
        failure.exit_code == DataContractError.exit_code and is_judging
    ):
        told = (
            "This run cannot be mended, because its inputs are fixed. Mend what the message names, "
            "then start a new cycle."
        )
        offered = (("Start a new cycle on the same day:", anew),)
    return step(told, *offered)


def after_lost_start(settings: Settings) -> NextStep:
    """Return what helps where `resolve_run` was killed and left nothing."""
    told = "Look at the end of resolve_run's log, then clear the task in Airflow."
    return step(told, ask_who_serves(settings))


def after_unresolved(request: RunRequest, settings: Settings) -> NextStep:
    """Return how a cycle is begun that broke in `resolve_run`."""
    begin = [("Begin the cycle:", cycle_command(request, settings, "resolve"))]
    if request.may_promote:
        without = cycle_command(request, settings, "resolve", may_promote=False)
        begin.append(("Or begin the cycle without permission to promote:", without))
    return step(
        "Mend what the message names, begin the cycle, then clear the failed task in Airflow: it "
        "goes on with the cycle that was begun. If the day or the recipe was not meant, trigger "
        "another run instead.",
        *begin,
    )
