"""The table of stages: one row says all that is known of a stage besides its function.

A stage takes the artifacts of earlier stages in the order given here, and after them, by name, what
`also` lists. Not for running a stage: that is `pipelines.stages.runner`. Tested in
tests/pipelines/stages/test_table.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Literal

from pydantic import Field

from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import Challenger, DataReport, FreshAnchor, ResolvedRun, Snapshot
from pipelines.contracts.base import Artifact, Frozen
from pipelines.contracts.judgement import Judgement, Promotion

Extra = Literal["output_uri", "now", "settings", "node"]
"""What a function may take besides artifacts: the folder for the files that it publishes (new for
each attempt), the wall clock at its start, the deployment's settings, and which of several machines
this is."""


class Resources(Frozen):
    """What the container of one stage asks for; that of a training on GPUs, for each GPU."""

    cpus: float = Field(gt=0)  # Cores.
    memory_gib: float = Field(gt=0)  # Memory in GiB; above it the stage is killed.


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    Attributes:
        name: Of the task and of the function in `pipelines/stages`.
        inputs: Earlier stages, and the artifact that each gives.
        gives: The artifact that this one gives.
        also: What the function takes besides.
        resources: Of a heavy stage, which is a command line of its own and may make its files
            again: what it usually asks for. None of a stage that runs inside Airflow's task.
        trains: Which side of the cycle it trains, if it trains.
        is_judging: Whether what it refuses cannot be mended within the run.
    """

    name: str
    inputs: dict[str, type[Artifact]]
    gives: type[Artifact]
    also: tuple[Extra, ...] = ()
    resources: Resources | None = None
    trains: Literal["challenger", "anchor"] | None = None
    is_judging: bool = False

    @property
    def module(self) -> str:
        """The module with the stage's function; light stages share one, and those that train."""
        own = "train" if self.name in SIDES else self.name if self.name in HEAVY else "light"
        return f"pipelines.stages.{own}"

    def load(self) -> Callable[..., Artifact]:
        """Import the stage's function; a light stage does not pay for a heavy one's libraries."""
        found: Callable[..., Artifact] = resolve_name(f"{self.module}:{self.name}")
        return found


_RUN: dict[str, type[Artifact]] = {"resolve_run": ResolvedRun}
_BUILT = _RUN | {"build_snapshot": Snapshot}
_CHECKED = _BUILT | {"check_snapshot": DataReport}
_TRAINED: dict[str, type[Artifact]] = {"train_challenger": Challenger, "train_anchor": FreshAnchor}
_JUDGED: dict[str, type[Artifact]] = {"compare_with_champion": Judgement}

_SMALL = Resources(cpus=2, memory_gib=8)
_USUAL = Resources(cpus=4, memory_gib=16)
_LARGE = Resources(cpus=8, memory_gib=32)
_FILES: tuple[Extra, ...] = ("output_uri", "node")

_STAGES = (
    # The input of `resolve_run` is a request, which no stage gives: see `runner.start_run`.
    Stage("resolve_run", {}, ResolvedRun, ("settings",)),
    Stage("build_snapshot", _RUN, Snapshot, (), _USUAL),
    Stage("check_snapshot", _BUILT, DataReport, ("output_uri",), _SMALL, is_judging=True),
    Stage("train_challenger", _CHECKED, Challenger, _FILES, _LARGE, "challenger", is_judging=True),
    Stage("train_anchor", _CHECKED, FreshAnchor, _FILES, _LARGE, "anchor", is_judging=True),
    Stage(
        *("compare_with_champion", _CHECKED | _TRAINED, Judgement),
        also=("output_uri", "now", "settings"),
        resources=_USUAL,
        is_judging=True,
    ),
    Stage("promote_challenger", _RUN | _TRAINED | _JUDGED, Promotion, ("now",)),
    Stage("alert", _RUN | _JUDGED, AlertReceipt, ("settings",)),
)
TABLE: dict[str, Stage] = {stage.name: stage for stage in _STAGES}
HEAVY = {stage.name: stage.resources for stage in _STAGES if stage.resources is not None}
"""The stages that run by themselves, and what each usually asks for. They alone may be repeated: a
run is resolved once, people are told once, and a promotion that is made again would overrule a
rollback that a person has made since."""
SIDES = {stage.name: stage.trains for stage in _STAGES if stage.trains is not None}
"""The stages that train, and the side of the cycle that each makes."""


def devices_of(stage: str, num_devices: int) -> int:
    """Return how many GPUs a stage holds on a machine: trainings a run's, the comparison one."""
    return num_devices if stage in SIDES else int(stage == "compare_with_champion")
