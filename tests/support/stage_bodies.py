"""A body that a test puts in the place of a stage's function, and the artifact that it gives."""

from collections.abc import Callable

import pytest

from pipelines.contracts.base import Artifact
from pipelines.contracts.stage_table import TABLE, Stage


class Number(Artifact):
    """What the bodies give: a number, and perhaps a file of one byte."""

    value: int
    file_uri: str = ""

    def places(self) -> dict[str, int | None]:
        return {self.file_uri: 1} if self.file_uri else {}


def replace_stage(monkeypatch: pytest.MonkeyPatch, name: str, body: Callable, *inputs: str) -> None:
    """Put a body in the place of a stage's function; it takes what the inputs give."""
    numbers = dict.fromkeys(inputs, Number)
    stage = Stage(name, inputs=numbers, gives=Number, also=("output_uri",))
    monkeypatch.setitem(TABLE, name, stage)
    monkeypatch.setattr(f"{stage.module}.{name}", body)
