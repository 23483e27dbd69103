"""`homefeed resolve`, `stage`, `retrain`, `reproduce` and `explain`: a cycle, and what came of it.

Tested in tests/pipelines/cli/test_main.py, test_cycle.py and test_reproduce.py.
"""

import contextlib
import logging
import tempfile
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from pipelines import storage
from pipelines.cli.printing import Commands, Run, recipes_like, say, say_all, say_value
from pipelines.contracts.artifacts import (
    MAX_DEVICES,
    MAX_NODES,
    STAGES,
    DataReport,
    ResolvedRun,
    RunRequest,
)
from pipelines.contracts.errors import ConfigurationError, DataContractError, HomefeedError
from pipelines.contracts.explain import Explanation
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.contracts.time import parse_instant
from pipelines.recipes import canonical, make_recipe
from pipelines.settings import Settings

log = logging.getLogger(__name__)
app = Commands()


@app.command()
def stage(
    name: Annotated[str, Argument(help=f"One of {', '.join(STAGES)}.")],
    run: Run,
    again: Annotated[bool, Option("--again", help="Run it even if it has ended.")] = False,
    node_rank: Annotated[
        int | None, Option(envvar="JOB_COMPLETION_INDEX", help="Which of several machines, from 0.")
    ] = None,
    rendezvous: Annotated[
        str, Option(envvar="HOMEFEED_RENDEZVOUS", help="HOST:PORT of machine 0; same on all.")
    ] = "",
) -> dict[str, str]:
    """Run one stage of a run, or find it done; print its manifest's URI."""
    from pipelines.stages.runner import is_defect, read_artifact, run_stage

    if name not in STAGES:
        raise ConfigurationError(f"no stage {name!r}; expected one of {', '.join(STAGES)}")
    try:
        uri = run_stage(name, run, again, node_rank, rendezvous)
    except Exception as error:
        if is_defect(error):
            _tell(name, read_artifact(run, "resolve_run", ResolvedRun), error)
        raise
    say(uri)
    return {"manifest_uri": uri}


@app.command("resolve", help="Fix as_of, champion and configuration of a cycle; print its URI.")
@app.command("retrain", help="Run a whole cycle without Airflow, or what is left of it.")
def begin(
    context: typer.Context,
    as_of: Annotated[
        str, Option(help="Day (YYYY-MM-DD, UTC); rows known before it are used.")
    ] = "",
    recipe: Annotated[
        str,
        Option(
            help="Name, module:function or file; HOMEFEED_RECIPE by default.",
            autocompletion=recipes_like,
        ),
    ] = "",
    promote: Annotated[
        bool, Option("--promote/--no-promote", help="May the champion move?")
    ] = True,
    devices: Annotated[int, Option(min=1, max=MAX_DEVICES, help="Training processes.")] = 1,
    nodes: Annotated[int, Option(min=1, max=MAX_NODES, help="Machines; `resolve` only.")] = 1,
    accelerator: Annotated[
        Literal["cpu", "gpu"] | None, Option(help="HOMEFEED_ACCELERATOR by default.")
    ] = None,
    key: Annotated[str, Option(help="Another key is another cycle.")] = "command line",
) -> dict[str, Any]:
    """Resolve a cycle, and run the rest of it too if the command is `retrain`."""
    from training.environment import require_devices

    settings, is_here = Settings(), context.info_name == "retrain"
    if is_here:  # whatever runs the stages of Airflow
        settings = settings.model_copy(update={"stage_runner": "bash"})
    hardware = accelerator or settings.accelerator
    if is_here:
        if nodes > 1:
            raise ConfigurationError(
                f"--nodes is {nodes}; expected 1 for `homefeed retrain`; for several machines "
                f"begin with `homefeed resolve`, and run the training stages on each"
            )
        require_devices(devices, hardware)
    request = RunRequest(
        recipe=canonical(recipe or settings.recipe),
        as_of=parse_instant(as_of, "--as-of") if as_of else None,
        now=datetime.now(UTC),
        may_promote=promote,
        num_devices=devices,
        num_nodes=nodes,
        accelerator=hardware,
        trigger=key,
    )
    run = _resolve(request, settings)
    # The cycle has its own value, and goes on without the recipe's file or module.
    with contextlib.suppress(HomefeedError):
        if make_recipe(request.recipe) != run.config:
            log.warning(
                "recipe %s has changed since this cycle was resolved; the cycle goes on with what "
                "it said then; give another --key to begin a cycle with the new value",
                request.recipe,
            )
    found = _finish(run, settings) if is_here else {}
    say(run.run_uri)
    return {"run_uri": run.run_uri, **found}


def _resolve(request: RunRequest, settings: Settings) -> ResolvedRun:
    from pipelines.alerts.compose import compose_unresolved
    from pipelines.alerts.incidents import tell
    from pipelines.stages.runner import is_defect, start_run, unresolved

    try:
        return start_run(request, settings)
    except Exception as error:
        if is_defect(error):
            left = unresolved(error, request, settings)
            tell(compose_unresolved(request.trigger, left, settings), settings)
        raise


def _tell(stage: str, run: ResolvedRun, error: Exception) -> None:
    from pipelines.alerts.compose import Ended
    from pipelines.stages.light import tell_failure

    tell_failure(run, Settings(), Ended(stage, str(error), at=datetime.now(UTC)))


def _finish(run: ResolvedRun, settings: Settings) -> dict[str, Any]:
    """Run every stage after the first one, print what came out, and return it."""
    from pipelines.alerts.incidents import tell_recovered
    from pipelines.cycles.reading import outcome_now
    from pipelines.stages.runner import read_artifact, run_stage

    for name in STAGES[1:]:
        try:
            run_stage(name, run.run_uri)
        except Exception as error:
            _tell(name, run, error)
            raise
    tell_recovered(run.run_uri, settings)
    judgement = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    promotion = read_artifact(run.run_uri, "promote_challenger", Promotion)
    report = read_artifact(run.run_uri, "check_snapshot", DataReport)
    outcome = outcome_now(run, judgement, settings)
    say_all(outcome.lines())
    return {"outcome": outcome, "promotion": promotion, "warnings": report.warnings}


@app.command()
def reproduce(
    run: Run,
    until: Annotated[str, Option(help="Last stage to rebuild.")] = "compare_with_champion",
    into: Annotated[
        str, Option(help="Folder to rebuild in, kept; a new temporary one by default.")
    ] = "",
    event_log: Annotated[
        str, Option(help="Where the event log lies by now, if it was moved.")
    ] = "",
) -> None:
    """Rebuild a past cycle from its record, elsewhere, and say digest by digest what is equal."""
    from pipelines.reproduction.comparing import REBUILT, read_cycle
    from pipelines.reproduction.rebuild import rebuild

    if until not in REBUILT:
        raise ConfigurationError(
            f"--until is {until!r}; expected one of {', '.join(REBUILT)}; the other stages move "
            f"the champion or tell people, and are never made again"
        )
    past = read_cycle(run)
    new = into or tempfile.mkdtemp(prefix=f"homefeed-reproduce-{past.run.run_id}-")
    folder = storage.local_path(storage.to_uri(new))
    say(f"rebuilding {past.run_uri}")
    say(f"in {folder}; the original is only read")
    event_log_uri = storage.to_uri(event_log) if event_log else ""
    outcome = rebuild(past, folder, until, say, event_log_uri)
    for found in outcome.findings:
        now = f" then, {found.now} now" if found.state == "differs" else ""
        start = f"{found.state:13}  {found.stage:21}  {found.what:31}"
        say(f"{start}  {found.then}{now}".rstrip())
        say_all(f"  {detail}" for detail in found.details)
    say(f"not as it was when the cycle ran: {'' if outcome.changes else 'nothing'}")
    say_all(f"- {change}" for change in outcome.changes)
    counts = Counter(found.state for found in outcome.findings)
    say("; ".join(f"{number} {state}" for state, number in counts.items()))
    about = {"run_uri": past.run_uri, "folder": folder, "changes": outcome.changes}
    say_value({**about, "findings": outcome.findings, "stopped_by": str(outcome.stopped_by or "")})
    if outcome.differing:
        what = ", ".join(f"{found.what} ({found.stage})" for found in outcome.differing)
        raise DataContractError(
            f"what was rebuilt of {past.run_uri} is not what its record says: {what}; expected "
            f"equal digests; read above what has changed since; both are there to be compared, "
            f"the rebuilt one in {folder}",
            kind="differs",
        )
    if outcome.stopped_by is not None:
        raise outcome.stopped_by


@app.command()
def explain(
    run: Run,
    seeds: Annotated[
        int, Option(min=2, help="Trainings of each setting; its own gets twice as many.")
    ] = 2,
) -> Explanation:
    """Say why a challenger lost: what comes back with data, code and recipe of the other side.

    A killed command goes on where it was. The verdict stays; its page tells of this afterwards.
    """
    from pipelines.explain import explaining

    found = explaining.explain(run, seeds)
    loss, floor = found.loss.value, 100 * found.unexplained_floor
    say(
        f"{found.challenger} has {100 * loss:.2f} % less {found.target_metric} than {found.against}"
    )
    for part in found.parts:
        told, luck = f"left out: {part.left_out}", ", as luck may bring" if part.is_luck else ""
        if part.gain:
            share = 100 * part.gain.value / loss
            told = f"{part.gain.in_percent}, {share:.0f} % of the loss{luck}"
        say(f"  {part.name} ({part.change}): {told}")
    for name, lost in found.segments.items():
        say(f"  requests of {name} users: {100 * lost.value / loss:.0f} % of the loss")
    say(f"  unexplained: {100 * found.unexplained:+.2f} %, by luck up to {floor:.2f} %")
    apart = f"{100 * found.seed_deviation:.2f} % apart by their seed alone"
    say(f"{found.num_trainings} trainings, {apart}; {found.method}")
    explaining.show(run)
    return found
