"""The commands of `homefeed` that messages, alerts and pages tell a person to run.

Every such command is made here, complete and quoted, so that it works when it is pasted into a
shell. Not for choosing which command helps: that is `pipelines.alerts.next_step`.
"""

import shlex
from dataclasses import dataclass
from datetime import datetime
from typing import Literal


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


@dataclass(frozen=True)
class CycleCommand:
    """The options of a cycle. The same key, recipe and as_of name the same cycle."""

    as_of: datetime
    recipe: str
    num_devices: int
    accelerator: str
    may_promote: bool
    key: str

    def text(self, verb: Literal["retrain", "resolve"] = "retrain") -> str:
        """Return the command of the whole cycle, or of its first stage only (`resolve`).

        A cycle that has begun goes on where it stopped.
        """
        return (
            f"homefeed {verb} --as-of {self.as_of:%Y-%m-%d} --recipe {shlex.quote(self.recipe)} "
            f"--devices {self.num_devices} --accelerator {self.accelerator} "
            f"--{'' if self.may_promote else 'no-'}promote --key {shlex.quote(self.key)}"
        )
