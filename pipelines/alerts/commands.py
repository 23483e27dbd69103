"""The commands of `homefeed` that messages, alerts and pages tell a person to run.

Every such command is made here, complete and quoted, so that it works when it is pasted into a
shell. Not for choosing which command helps: that is `pipelines.alerts.next_step`, with whose tests
these commands are tested (tests/pipelines/alerts/test_next_step.py).
"""

import shlex
from typing import Any, Literal

from pipelines.contracts.artifacts import RunRequest


def stage_command(stage: str, run_uri: str, again: bool = False) -> str:
    """Return the command that runs one stage of a run.

    Args:
        stage: One of `artifacts.STAGES`.
        run_uri: The run folder.
        again: Whether the stage does its work even if it has published already.
    """
    return f"homefeed stage {stage} --run {shlex.quote(run_uri)}{' --again' if again else ''}"


def rebuild_command(run_uri: str) -> str:
    """Return the command that builds a run's snapshot again, in place of a damaged one."""
    return stage_command("build_snapshot", run_uri, again=True)


def cycle_command(
    request: RunRequest, verb: Literal["retrain", "resolve"] = "retrain", **changes: Any
) -> str:
    """Return the command of a whole cycle, or of its first stage only (`resolve`).

    The same key, recipe and as_of name the same cycle. A cycle that has begun goes on where it
    stopped.

    Args:
        request: What the cycle is asked for; its trigger is the key.
        verb: The command.
        changes: Fields of the request that get other values.
    """
    asked = request.model_copy(update=changes)
    return (
        f"homefeed {verb} --as-of {asked.day:%Y-%m-%d} --recipe {shlex.quote(asked.recipe)} "
        f"--devices {asked.num_devices} --accelerator {asked.accelerator} "
        f"--{'' if asked.may_promote else 'no-'}promote --key {shlex.quote(asked.trigger)}"
    )
