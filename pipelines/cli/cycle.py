"""`homefeed resolve`, `stage` and `retrain`: a cycle in steps, one step of it, or all of it.

Tested in tests/pipelines/cli/test_main.py and test_cycle.py.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from pipelines.cli.printing import Commands, say, say_all
from pipelines.contracts.artifacts import (
    MAX_DEVICES,
    MAX_NODES,
    STAGES,
    DataReport,
    ResolvedRun,
    RunRequest,
)
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.contracts.time import parse_instant
from pipelines.recipes import canonical, make_recipe
from pipelines.settings import Settings

log = logging.getLogger(__name__)
app = Commands()


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}.")],
    run: Annotated[str, typer.Option(help="URI or path of the run folder.")],
    again: Annotated[bool, typer.Option("--again", help="Run it even if it has ended.")] = False,
    node_rank: Annotated[
        int | None,
        typer.Option(
            envvar="JOB_COMPLETION_INDEX",
            help="Which machine this is, from 0, where the run trains on several.",
        ),
    ] = None,
    rendezvous: Annotated[
        str,
        typer.Option(
            envvar="HOMEFEED_RENDEZVOUS",
            help="HOST:PORT of machine 0, a free port there; same on all.",
        ),
    ] = "",
) -> dict[str, str]:
    """Run one stage of a run, or find it done; print its manifest's URI."""
    from pipelines.stages.runner import run_stage

    if name not in STAGES:
        raise ConfigurationError(f"no stage {name!r}; expected one of {', '.join(STAGES)}")
    uri = run_stage(name, run, again, node_rank, rendezvous)
    say(uri)
    return {"manifest_uri": uri}


@app.command("resolve", help="Fix as_of, champion and configuration of a cycle; print its URI.")
@app.command("retrain", help="Run a whole cycle without Airflow, or what is left of it.")
def begin(
    context: typer.Context,
    as_of: Annotated[
        str, typer.Option(help="Day (YYYY-MM-DD, UTC); rows known before it are used.")
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(help="Name, module:function or file; HOMEFEED_RECIPE by default."),
    ] = "",
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="May the champion move?")
    ] = True,
    devices: Annotated[int, typer.Option(help=f"Training processes, 1 to {MAX_DEVICES}.")] = 1,
    nodes: Annotated[int, typer.Option(help=f"Machines, 1 to {MAX_NODES}; `resolve` only.")] = 1,
    accelerator: Annotated[
        Literal["cpu", "gpu"] | None, typer.Option(help="HOMEFEED_ACCELERATOR by default.")
    ] = None,
    key: Annotated[str, typer.Option(help="Another key is another cycle.")] = "command line",
) -> dict[str, Any]:
    """Resolve a cycle, and run the rest of it too if the command is `retrain`."""
    from pipelines.stages.runner import is_resolved, start_run

    settings, is_here = Settings(), context.info_name == "retrain"
    if is_here:  # whatever runs the stages of Airflow
        settings = settings.model_copy(update={"stage_runner": "bash"})
    hardware = accelerator or settings.accelerator
    _check_machines(nodes, devices, hardware, is_here)
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
    was_resolved = is_resolved(request, settings)
    run = start_run(request, settings)
    if was_resolved:
        _tell_if_changed(run, request.recipe)
    found = _finish(run, settings) if is_here else {}
    say(run.run_uri)
    return {"run_uri": run.run_uri, **found}


def _tell_if_changed(run: ResolvedRun, reference: str) -> None:
    """Warn where the cycle was resolved before and its recipe says something else by now."""
    try:
        todays = make_recipe(reference)
    except HomefeedError:
        return  # The cycle has its own value, and goes on without the file or module.
    if todays != run.config:
        log.warning(
            "recipe %s has changed since this cycle was resolved (%s then, %s now); the cycle goes "
            "on with what it said then; give another --key to begin a cycle with the new value",
            *(reference, run.config.fingerprint()[:12], todays.fingerprint()[:12]),
        )


def _check_machines(
    nodes: int, devices: int, accelerator: Literal["cpu", "gpu"], is_here: bool
) -> None:
    """Refuse a number of machines or devices before anything is built for them.

    Raises:
        ConfigurationError: there are not so many, or not here, where `retrain` trains.
    """
    from training.environment import require_devices

    if not 1 <= nodes <= (1 if is_here else MAX_NODES):
        raise ConfigurationError(
            f"--nodes is {nodes}; expected 1 to {MAX_NODES} for `homefeed resolve`, and 1 for "
            f"`homefeed retrain`, which trains on this machine alone; begin the cycle with "
            f"`homefeed resolve --nodes 2`, say, and run its training stages on each machine"
        )
    if not 1 <= devices <= MAX_DEVICES:
        raise ConfigurationError(
            f"--devices is {devices}; expected 1 to {MAX_DEVICES}, which is a training process for "
            f"each GPU or core of one machine; give another number"
        )
    if is_here:
        require_devices(devices, accelerator)


def _finish(run: ResolvedRun, settings: Settings) -> dict[str, Any]:
    """Run every stage after the first one, print what came out, and return it."""
    from pipelines.alerts.compose import Ended
    from pipelines.alerts.incidents import tell_recovered
    from pipelines.alerts.outcomes import kept_outcome, what_was_promoted
    from pipelines.stages.alert import tell_failure
    from pipelines.stages.runner import read_artifact, run_stage

    for name in STAGES[1:]:
        try:
            run_stage(name, run.run_uri)
        except HomefeedError as error:
            ended = Ended(name, str(error), at=datetime.now(UTC))
            tell_failure(run.run_uri, settings, ended)
            raise
        if name == "check_snapshot":
            for each in read_artifact(run.run_uri, name, DataReport).warnings:
                where = f" in {', '.join(each.partitions[:3])}" if each.partitions else ""
                found = f"found {each.observed}{where}; expected {each.expected}"
                say(f"the data gate warns of {each.name}: {found}")
    tell_recovered(run.run_uri, settings)
    judgement = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    promotion = read_artifact(run.run_uri, "promote_challenger", Promotion)
    report = read_artifact(run.run_uri, "check_snapshot", DataReport)
    outcome = kept_outcome(run, judgement, settings, report)
    say_all(outcome.lines())
    say_all(_baseline_lines(judgement))
    say(what_was_promoted(promotion))
    value = {"outcome": outcome, "baselines": judgement.baselines, "promotion": promotion}
    return value | {"warnings": report.warnings}


def _baseline_lines(judgement: Judgement) -> Iterator[str]:
    """Yield how the simple baselines do, a line for each; nothing where none was measured."""
    if judgement.baselines:
        metric = judgement.comparison.target_metric
        yield f"simple baselines by {metric}, the best first, and the challenger's change:"
    width = max((len(each.name) for each in judgement.baselines), default=0)
    for each in judgement.baselines:
        change = f"not known: {each.note}" if each.note else "not known"
        if each.change is not None:
            found = each.change
            change = (
                f"{found.value:+.2%} ({100 * found.confidence:g} % interval {found.low:+.2%} to "
                f"{found.high:+.2%})"
            )
        level = f"{each.level.value:.4f}" if each.level else "-"
        yield f"  {each.name:<{width}}  {level:>6}  {change}"
