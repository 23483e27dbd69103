"""The commands of `homefeed` that messages, alerts and pages tell a person to run.

Every such command is made here, complete and quoted, so that it works when it is pasted into a
shell. What a run's URI does not tell the command stands before it, as settings in the environment:
a shell that knows nothing of the deployment must not act on another model or workspace. Not for
choosing which command helps: `pipelines.alerts.outcomes` and `pipelines.alerts.compose`.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

from pipelines.alerts.links import ACCOUNT
from pipelines.contracts.alert import NextStep
from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.code_identity import DAG_VERSION
from pipelines.settings import Settings

Offered = tuple[str, str]
"""What a command is for, and the command."""


def homefeed(words: str, settings: str = "") -> str:
    """Return a command that works in every folder of this machine, whatever is on the PATH.

    The executable is the one of the installation that composes the message. Where it is not
    installed as a command, or is that of a stage's container, which is gone when somebody reads the
    message, its name is left as it is. Settings, if any, end with a space.
    """
    executable = Path(sys.executable).with_name("homefeed")
    is_here = DAG_VERSION not in os.environ and executable.is_file()  # Containers are given it.
    return f"{settings}{shlex.quote(str(executable)) if is_here else 'homefeed'} {words}"


def step(sentence: str, *offered: Offered) -> NextStep:
    """Return a next step with the commands that are offered."""
    return NextStep(sentence=sentence, commands=offered)


def command_at(places: ResolvedRun | Settings, words: str, *more: str) -> str:
    """Return a command after the settings that it reads and that differ from their defaults.

    It reads `more` settings beside workspace, tracking server and registered model.
    """
    folders, set_to = {"workspace": places.workspace_uri, "event_log": places.event_log_uri}, ""
    for name in ("workspace", "tracking_uri", "registered_model", *more):
        # The folders' defaults depend on the folder that a shell is in, so they always stand.
        value = folders[name] if name in folders else getattr(places, name)
        if value != Settings.model_fields[name].default:
            # A message is read by many; with an account MLflow's address would be refused, too.
            set_to += f"HOMEFEED_{name.upper()}={shlex.quote(ACCOUNT.sub('', value))} "
    return homefeed(words, set_to)


def stage_command(stage: str, run_uri: str, again: bool = False) -> str:
    """Return the command that runs one stage of a run; `again`: in place of what it published."""
    return homefeed(f"stage {stage} {shlex.quote(run_uri)}{' --again' if again else ''}")


def rebuild_command(run_uri: str) -> str:
    """Return the command that builds a run's snapshot again, in place of a damaged one."""
    return stage_command("build_snapshot", run_uri, again=True)


def accept_shift_command(run_uri: str, expectation: str) -> str:
    """Return the command with which a person accepts a shift; name and reason are to be filled."""
    return homefeed(
        f"gate accept {shlex.quote(run_uri)} {expectation} --by 'your name' "
        f"--reason 'why the data are right'"
    )


def cycle_command(
    request: RunRequest,
    places: ResolvedRun | Settings,
    verb: Literal["retrain", "resolve"] = "retrain",
    **changes: Any,
) -> str:
    """Return the command of a whole cycle, or of its first stage only (`resolve`).

    The same key, recipe and as_of name the same cycle. A cycle that has begun goes on where it
    stopped.

    The places say where it runs; `changes` are fields of the request that get other values.
    """
    asked = request.model_copy(update=changes)
    if verb == "retrain":  # on one machine, where so many processes train the same weights
        devices = asked.num_devices * asked.num_nodes
        asked = asked.model_copy(update={"num_devices": devices, "num_nodes": 1})
    nodes = f" --nodes {asked.num_nodes}" if asked.num_nodes > 1 else ""
    words = (
        f"{verb} --as-of {asked.day:%Y-%m-%d} --recipe {shlex.quote(asked.recipe)} "
        f"--devices {asked.num_devices} --accelerator {asked.accelerator}{nodes} "
        f"--{'' if asked.may_promote else 'no-'}promote --key {shlex.quote(asked.trigger)}"
    )
    return command_at(places, words, "event_log", "experiment")


def new_cycle_command(run: ResolvedRun, **changes: Any) -> str:
    """Return the command of a cycle like this one, with a key of its own: nothing of it is done."""
    return cycle_command(run.to_request(), run, trigger=f"again-{run.run_id}", **changes)


def force_command(run: ResolvedRun) -> str:
    """Return the command that promotes a run's challenger in spite of its verdict."""
    reason = "--reason 'why the verdict is overruled'"
    return command_at(run, f"promote --force {shlex.quote(run.run_uri)} {reason}")


def repair_command(settings: Settings, to_version: str) -> str:
    """Return the command that makes history and registry agree, as it was just shown."""
    version = f" --to-version {shlex.quote(to_version)}" if to_version else ""
    reason = "--reason 'what had happened'"
    return command_at(settings, f"history repair --apply{version} {reason}")


def rollback_command(run: ResolvedRun, version: str = "", away: str = "") -> str:
    """Return the command that makes a version champion again; by default the one before.

    `away` is taken down, so that the command does nothing when it is given twice.
    """
    to_version = f" --to-version {version}" if version else ""
    from_version = f" --from-version {away}" if away else ""
    return command_at(run, f"rollback{to_version}{from_version}")
