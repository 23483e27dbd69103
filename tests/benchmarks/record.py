"""Rows of `results.json`: what was measured, against whom, how many times, on what machine."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from pipelines.contracts.base import Frozen

RESULTS = Path(__file__).with_name("results.json")


class Row(Frozen):
    """One measured figure."""

    name: str
    figure: float
    unit: str
    ratio: float | None = Field(description="Figure against the peer's; None without a peer.")
    peer: str | None = Field(description="What it is compared with, measured in the same run.")
    spread: str = Field(description="Interval or range, and of what.")
    rows: int = Field(description="Rows, requests or repetitions behind the figure.")
    seed: str = Field(description="Seeds used, or 'none'.")
    machine: str
    date: str
    note: str = ""


def machine() -> str:
    """Return the cores and the processor, as far as the system tells."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} cores, {model}"


def row(name: str, figure: float, unit: str, **rest: object) -> Row:
    """Return a row of today on this machine; `rest` as the fields of `Row`."""
    fields = {"ratio": None, "peer": None, "spread": "one run", "seed": "none"} | rest
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return Row(name=name, figure=figure, unit=unit, machine=machine(), date=today, **fields)


def load() -> list[Row]:
    """Return the rows on file."""
    if not RESULTS.exists():
        return []
    return [Row.model_validate(entry) for entry in json.loads(RESULTS.read_text())]


def save(fresh: list[Row]) -> None:
    """Put fresh rows in place of those of the same name; keep the others."""
    names = {entry.name for entry in fresh}
    kept = [entry for entry in load() if entry.name not in names]
    rows = sorted([*kept, *fresh], key=lambda entry: entry.name)
    text = json.dumps([entry.model_dump(mode="json") for entry in rows], indent=1)
    RESULTS.write_text(text + "\n")
