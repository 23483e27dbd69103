"""Pages of a checked log, of usual and of awkward data, without any files."""

import math
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

from pipelines.log_check import report as log_page
from pipelines.log_check.judgements import judge
from pipelines.log_check.report import LogReport
from support.outcome_pages import LONG, MARKUP

FIRST = date(2017, 1, 1)
USUAL = ("click", "close_up", "hide", "repin", "save")
MANY = (LONG, MARKUP, "_private", "$a$ and $b$", *(f"action_{number:02d}" for number in range(36)))
SIZES = {"usual": (21, USUAL), "one_day": (1, USUAL), "huge": (365, MANY)}
"""By name: how many days there are, and which action types."""


def day_of(
    shown: int | None = None,
    acted: Mapping[str, int] | None = None,
    labelled: Mapping[str, int] | None = None,
    **more: Mapping[str, int],
) -> dict[str, dict[str, int]]:
    """Return a day with so many impressions and actions by type; None: it has no such files."""
    of = {"impressions": shown, "actions": None if acted is None else sum(acted.values())}
    counts = {"rows": {table: num for table, num in of.items() if num is not None}}
    counts |= {"labelled": dict(labelled or {}), "actions": dict(acted or {})}
    return counts | {name: dict(found) for name, found in more.items()}


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
        # Weeks are seen in the days, and one lacks most of its rows.
        usual = 1_200_000 + 260_000 * math.sin(number * 2 * math.pi / 7) + 900 * number
        shown = int(usual * (0.05 if number == num_days - 2 else 1))
        waves = {each: 1 + 0.2 * math.sin(number / 3 + place) for place, each in enumerate(types)}
        counts = {
            each: int(shown * 0.05 / (1 + place) * wave)
            for place, (each, wave) in enumerate(waves.items())
        }
        day = FIRST + timedelta(days=number)
        report.days[day] = day_of(shown, counts, counts)
    report.problems = list(judge(report, None))
    return report


def write_page(folder: Path, name: str) -> Path:
    """Write the page, and return where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"log_{name}.html"
    log_page.write_page(report_of(name), path)
    return path
