"""Pages of a checked log and of a snapshot, of usual and of awkward data, without any files."""

import math
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from pipelines.contracts.artifacts import FileDigest
from pipelines.contracts.config import FeatureConfig, Head
from pipelines.contracts.time import Window
from pipelines.log_check import page as log_page
from pipelines.log_check.judgements import judge
from pipelines.log_check.report import LogReport
from pipelines.snapshot_view import showing
from pipelines.snapshot_view.facts import LENGTH_EDGES, Counts, SnapshotFacts, WindowFacts
from support.log_reports import day_of
from support.outcome_pages import LONG, MARKUP
from support.snapshots import snapshot_of

FIRST = date(2017, 1, 1)
USUAL = ("click", "close_up", "hide", "repin", "save")
MANY = (LONG, MARKUP, "_private", "$a$ and $b$", *(f"action_{number:02d}" for number in range(36)))
SIZES = {"usual": (21, USUAL), "one_day": (1, USUAL), "huge": (365, MANY)}
"""By name: how many days there are, and which action types or heads."""
FILES = ("examples", "pins", "requests", "timeline", "users")


def report_of(name: str) -> LogReport:
    """Return what a check finds of a log whose last day but one lacks most impressions."""
    num_days, types = SIZES[name]
    report = LogReport(
        uri="file:///srv/logs/homefeed/event_log" + ("/" + LONG if types is MANY else ""),
        recipe="production",
        label_window_hours=24,
        num_requests=40_000,
        num_users=12_345,
        num_pins=98_765,
    )
    for number in range(num_days):
        shown = _rows(number, num_days)
        counts = {each: _labels(shown, place, number) for place, each in enumerate(types)}
        day = FIRST + timedelta(days=number)
        report.days[day] = day_of(shown, counts, counts)
    report.problems = list(judge(report, None))
    return report


def facts_of(name: str) -> SnapshotFacts:
    """Return what a snapshot holds: as many training days, and at most a week of holdout."""
    num_days, heads = SIZES[name]
    features = FeatureConfig(
        action_types=heads,
        heads=tuple(Head(name=each, action_type=each, utility_weight=1.0) for each in heads),
    )
    files = tuple(
        FileDigest(path=f"shard-00000/{each}.arrow", sha256="0" * 64, num_bytes=10 ** (3 + place))
        for place, each in enumerate(FILES)
    )
    snapshot = snapshot_of().model_copy(
        update={"features": features, "files": files, "num_pins": 98_765}
    )
    training = _window("training", snapshot.training, range(num_days), heads)
    ends = range(num_days + 1, num_days + 1 + min(num_days, 7))
    return SnapshotFacts(snapshot, training, _window("holdout", snapshot.holdout, ends, heads))


def write_pages(folder: Path, name: str) -> dict[str, Path]:
    """Write both pages, and return them by what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"log": folder / f"log_{name}.html", "snapshot": folder / f"snapshot_{name}.html"}
    log_page.write_page(report_of(name), pages["log"])
    pages["snapshot"].write_text(showing.render(facts_of(name)), "utf-8")
    return pages


def _window(name: str, window: Window, numbers: range, heads: tuple[str, ...]) -> WindowFacts:
    by_day, whole = {}, Counter[str]()
    for number in numbers:
        num = _rows(number, len(numbers) + 99)
        labels = Counter({each: _labels(num, place, number) for place, each in enumerate(heads)})
        by_day[FIRST + timedelta(days=number)] = Counts(num // 20, num, labels)
        whole.update(labels)
    requests, examples = (
        sum(getattr(day, kind) for day in by_day.values()) for kind in ("requests", "examples")
    )
    lengths = requests * np.arange(1, len(LENGTH_EDGES) + 1) // 66
    return WindowFacts(name, window, 4321, Counts(requests, examples, whole), by_day, lengths)


def _rows(number: int, num_days: int) -> int:
    """Return a day's impressions: weeks are seen in them, and one day lacks most of them."""
    usual = 1_200_000 + 260_000 * math.sin(number * 2 * math.pi / 7) + 900 * number
    return int(usual * (0.05 if number == num_days - 2 else 1))


def _labels(num_rows: int, place: int, number: int) -> int:
    return int(num_rows * (0.05 / (1 + place)) * (1 + 0.2 * math.sin(number / 3 + place)))
