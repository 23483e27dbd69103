"""What a person should do after a cycle, as one sentence and commands that work when pasted.

The alert, the verdict page and the command line all say what is composed here, so that they never
disagree. Not for the wording of the rest of an alert (`pipelines.alerts.compose`), nor for how a
command is spelled (`pipelines.alerts.commands`).
"""

from datetime import timedelta
from typing import Any

from pipelines.alerts.commands import (
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
    BundleMissingError,
    DataContractError,
    DataGateFailedError,
    HomefeedError,
    PromotionRefusedError,
    SnapshotDamagedError,
)
from pipelines.contracts.judged.alert import NextStep
from pipelines.contracts.judgement import Decision, Judgement, Promoted, Promotion
from pipelines.contracts.run_layout import StageFailure
from pipelines.contracts.stage_table import TABLE
from pipelines.settings import Settings

Commands = tuple[tuple[str, str], ...]
"""Pairs of what a command is for and the command."""


def after_lost_start(settings: Settings) -> NextStep:
    """Return what helps where `resolve_run` was killed and left nothing."""
    return _step(
        "Look at the end of resolve_run's log, then clear the task in Airflow.",
        _ask_who_serves(settings),
    )


def after_verdict(run: ResolvedRun, judgement: Judgement) -> NextStep:
    """Return what the pipeline does after a verdict, and what a person may do."""
    verdict, promoted = judgement.verdict, judgement.promoted_model
    challenger = judgement.comparison.challenger_model.label
    stays = what_serves(run)
    who_serves = _ask_who_serves(run)
    # Where nothing served before the cycle, nobody needs to ask.
    serving = () if (run.later_champion or run.champion) is None else (who_serves,)
    if verdict.promoted is Promoted.NONE:
        return _after_no_promotion(run, judgement, serving)
    assert promoted is not None  # Only a model that was compared is promoted.
    if run.may_promote:
        sentence = (
            f"The pipeline makes {promoted.label} the champion, unless the champion has changed."
        )
        if verdict.promoted is Promoted.ANCHOR:
            sentence = (
                f"{sentence} It is the accepted recipe made fresh; {challenger} stays in the "
                f"registry."
            )
        if run.champion is None:
            return _step(sentence, who_serves)
        # The versions are named: what `rollback` alone does depends on what serves by then.
        back = rollback_command(run, run.champion.version, promoted.version)
        return _step(sentence, who_serves, (f"Go back to {run.champion.label}:", back))
    if run.later_champion is not None:
        return _step(
            f"{stays} This run may not promote, and no run as of {run.as_of:%Y-%m-%d} could.",
            who_serves,
        )
    return _step(
        f"{stays} This run may not promote: it is a backfill, or promotion was switched off.",
        *serving,
        ("Run the cycle again, allowed to promote:", new_cycle_command(run, may_promote=True)),
    )


def _after_no_promotion(run: ResolvedRun, judgement: Judgement, serving: Commands) -> NextStep:
    """Return what a person may do where nothing is promoted."""
    stays, challenger = what_serves(run), judgement.comparison.challenger_model.label
    num_unpromoted = _num_unpromoted(run)
    by_hand: Commands = ()
    if judgement.problem:
        by_hand = (("Name the accepted recipe:", accept_command(run)),)
    elif run.standing.hold:
        by_hand = (("Let the recipe be promoted again:", release_command(run)),)
    elif _is_long(run):
        stays = (
            f"{stays} Nothing was promoted in {num_unpromoted} cycles, and the champion ages: "
            f"somebody has to decide."
        )
        by_hand = (
            ("Promote this challenger in spite of the verdict:", force_command(run)),
            ("Accept this run's recipe, so that later ones are held to it:", accept_command(run)),
        )
    if judgement.verdict.decision is Decision.REJECT:
        return _step(
            f"{stays} {challenger} stays in the registry and is not promoted. Once the data or the "
            f"code is mended, a new cycle on the same day tells whether that helped.",
            *serving,
            *by_hand,
            ("After a fix of data or code:", new_cycle_command(run)),
        )
    return _ask_fresh_data(run, stays, (*serving, *by_hand))


def needs_somebody(run: ResolvedRun, judgement: Judgement) -> bool:
    """Return whether a person has to decide something before a cycle like this one promotes."""
    is_nothing = judgement.verdict.promoted is Promoted.NONE
    return is_nothing and bool(judgement.problem or run.standing.hold or _is_long(run))


def _is_long(run: ResolvedRun) -> bool:
    return run.may_promote and _num_unpromoted(run) >= run.config.model_gate.max_unpromoted_cycles


def _num_unpromoted(run: ResolvedRun) -> int:
    return len({*run.standing.unpromoted, run.as_of})


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


def after_failure(run: ResolvedRun, stage: str, failure: StageFailure | None) -> NextStep:
    """Return how a broken run is mended.

    Args:
        run: The cycle.
        stage: The stage that failed, one of `artifacts.STAGES`.
        failure: What the stage wrote; None when it was killed before it could.
    """
    if stage not in STAGES:  # The question to people is Airflow's own.
        return _step(
            f"Mend what its log names, then clear {stage} in Airflow, with what is after it: the "
            f"run goes on from there, and an answer that was given stays. Where the log says that "
            f"another verdict was shown, begin another cycle with the command that it gives."
        )
    again = ("Run the failed stage again:", stage_command(stage, run.run_uri))
    rest: Commands = (
        (
            "Run what is left of the cycle (in Airflow, clear the failed task instead):",
            cycle_command(run.to_request(), run),
        ),
    )
    if stage in ("promote_challenger", "alert"):
        rest = (*rest, _ask_who_serves(run))
    if failure is None:
        return _step("Look at the end of the stage's log, then run the stage again.", again, *rest)
    if failure.error_class == SnapshotDamagedError.__name__:
        return _step(
            "Build the snapshot again from the event log, which gives the same files, then run the "
            "failed stage again.",
            ("Build the snapshot again:", rebuild_command(run.run_uri)),
            again,
            *rest,
        )
    return _after_bad_input(run, stage, failure, again, rest) or _step(
        "Mend what the message names, then run the stage again.", again, *rest
    )


def _after_bad_input(
    run: ResolvedRun, stage: str, failure: StageFailure, again: tuple[str, str], rest: Commands
) -> NextStep | None:
    """Return what helps where a stage may not use what others have published; None elsewhere."""
    if failure.acceptable:
        return _after_acceptable(run, stage, failure.acceptable, again, rest)
    if failure.error_class == BundleMissingError.__name__ and TABLE[stage].is_judging:
        return _step(
            "Put the files back, then run the failed stage again. Where they are lost, roll back "
            "to a version that has its files, then start a new cycle, which is compared with that.",
            again,
            *rest,
            ("After a rollback, start a new cycle on the same day:", new_cycle_command(run)),
        )
    is_bad_data = failure.exit_code == DataContractError.exit_code and TABLE[stage].is_judging
    if is_bad_data or failure.exit_code == PromotionRefusedError.exit_code:
        return _step(
            "This run cannot be mended, because its inputs are fixed. Mend what the message names, "
            "then start a new cycle.",
            ("Start a new cycle on the same day:", new_cycle_command(run)),
        )
    return None


def _after_acceptable(
    run: ResolvedRun, stage: str, names: tuple[str, ...], again: tuple[str, str], rest: Commands
) -> NextStep:
    """Return what helps where the data gate has refused what a person may accept."""
    accept = [
        (f"If the data are right, accept {name}:", accept_shift_command(run.run_uri, name))
        for name in names
    ]
    if stage == "build_snapshot":  # It reads the event log, as it is by then.
        return _step(
            "Mend the event log or, if the data are right, accept them; then run the stage again.",
            *accept,
            again,
            *rest,
        )
    return _step(
        "Mend the event log and start a new cycle or, if the data are right, accept them and run "
        "the stage again.",
        ("Once the event log is mended, start a new cycle:", new_cycle_command(run)),
        *accept,
        ("After that, run the failed stage again:", again[1]),
        *rest,
    )


def after_forced(run: ResolvedRun, version: str) -> NextStep:
    """Return how a promotion by hand of a version is looked at, and taken back."""
    return _step(
        "Watch what users do now. A rollback takes the promotion back.",
        _ask_who_serves(run),
        ("Go back to the version before:", rollback_command(run, away=version)),
    )


def after_unresolved(request: RunRequest, settings: Settings) -> NextStep:
    """Return how a cycle is begun that broke in `resolve_run`."""
    begin = [("Begin the cycle:", cycle_command(request, settings, "resolve"))]
    if request.may_promote:
        without = cycle_command(request, settings, "resolve", may_promote=False)
        begin.append(("Or begin the cycle without permission to promote:", without))
    return _step(
        "Mend what the message names, begin the cycle, then clear the failed task in Airflow: it "
        "goes on with the cycle that was begun. If the day or the recipe was not meant, trigger "
        "another run instead.",
        *begin,
    )


def after_missed(request: RunRequest, settings: Settings, is_newer_under_way: bool) -> NextStep:
    """Return what helps where the schedule skipped cycles.

    Args:
        request: The newest cycle that was skipped, as Airflow asked for it.
        settings: Places.
        is_newer_under_way: Whether a newer cycle runs now, or has come and is next.
    """
    if is_newer_under_way:
        return _step(
            "Nothing has to be run: a newer cycle runs now or is next, and tells if it does not "
            "run. Find out why nobody started the skipped ones.",
            _ask_who_serves(settings),
        )
    return _step(
        "Find out why nobody started the cycle. If the champion should not wait for the next one, "
        "run the newest skipped cycle now; or clear its run in Airflow, which then runs whatever "
        "its date.",
        ("Run the newest skipped cycle now:", cycle_command(request, settings)),
        _ask_who_serves(settings),
    )


def after_recovery(run: ResolvedRun) -> NextStep:
    """Return what is left to do once a cycle has ended after cycles that broke: nothing."""
    return _step("Nothing has to be done.", _ask_who_serves(run))


def is_refusal(failure: StageFailure) -> bool:
    """Return whether a failure is the data gate's answer, and not a broken run."""
    refusals = (DataGateFailedError.__name__, SnapshotDamagedError.__name__)
    judging = ("build_snapshot", "check_snapshot")  # the event log, and what is built of it
    return failure.stage in judging and failure.error_class in refusals


def new_cycle_command(run: ResolvedRun, **changes: Any) -> str:
    """Return the command of a cycle like this one, with a key of its own.

    Another key is another cycle, in which nothing counts as done.
    """
    return cycle_command(run.to_request(), run, trigger=f"again-{run.run_id}", **changes)


def _ask_fresh_data(run: ResolvedRun, stays: str, serving: Commands) -> NextStep:
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
    return _step(
        f"{stays} {as_of:%Y-%m-%d} is the first as_of whose holdout shares no request with this "
        f"one, and {covered}.",
        *serving,
        (purpose, new_cycle_command(run, as_of=as_of)),
    )


def _ask_who_serves(places: ResolvedRun | Settings) -> tuple[str, str]:
    return "Which model serves now?", serving_command(places)


def _step(sentence: str, *commands: tuple[str, str]) -> NextStep:
    made = tuple((purpose, runnable(command)) for purpose, command in commands)
    return NextStep(sentence=sentence, commands=made)
