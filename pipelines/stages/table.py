"""The table of stages: what each takes, what it gives, and where its function is.

A stage takes the artifacts of earlier stages in the order given here, and after them, by name, what
`also` lists. Its function is imported when the stage is run, so that a light stage does not pay for
the libraries of a heavy one. Not for running a stage: that is `pipelines.stages.runner`. Tested in
tests/pipelines/stages/test_table.py and test_runner.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Literal

from pipelines.contracts.artifacts import Challenger, DataReport, FreshAnchor, ResolvedRun, Snapshot
from pipelines.contracts.base import Artifact
from pipelines.contracts.judged.alert import AlertReceipt
from pipelines.contracts.judgement import Judgement, Promotion

Extra = Literal["output_uri", "now", "settings", "node"]
"""What a function may take besides artifacts: the folder for the files that it publishes (new for
each attempt), the wall clock at its start, the deployment's settings, and which of several machines
this is."""


@dataclass(frozen=True)
class Stage:
    """One row of the table."""

    name: str
    inputs: dict[str, type[Artifact]]  # Earlier stages, and the artifact that each gives.
    gives: type[Artifact]
    also: tuple[Extra, ...] = ()

    def load(self) -> Callable[..., Artifact]:
        """Import the stage's function. Its file in this folder has the same name."""
        return resolve_name(f"{__package__}.{self.name}:{self.name}")


RUN: dict[str, type[Artifact]] = {"resolve_run": ResolvedRun}
BUILT = RUN | {"build_snapshot": Snapshot}
CHECKED = BUILT | {"check_snapshot": DataReport}
TRAINED: dict[str, type[Artifact]] = {"train_challenger": Challenger, "train_anchor": FreshAnchor}
JUDGED: dict[str, type[Artifact]] = {"compare_with_champion": Judgement}

_STAGES = (
    # The input of `resolve_run` is a request, which no stage gives: see `runner.start_run`.
    Stage("resolve_run", {}, ResolvedRun, ("settings",)),
    Stage("build_snapshot", RUN, Snapshot),
    Stage("check_snapshot", BUILT, DataReport, ("output_uri",)),
    Stage("train_challenger", CHECKED, Challenger, ("output_uri", "node")),
    Stage("train_anchor", CHECKED, FreshAnchor, ("output_uri", "node")),
    Stage("compare_with_champion", CHECKED | TRAINED, Judgement, ("output_uri", "now", "settings")),
    Stage("promote_challenger", RUN | TRAINED | JUDGED, Promotion, ("now",)),
    Stage("alert", RUN | JUDGED, AlertReceipt, ("settings",)),
)
TABLE: dict[str, Stage] = {stage.name: stage for stage in _STAGES}
