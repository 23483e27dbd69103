"""Counts the tries of `make bench-faults`, and writes them into docs/reliability.md.

A try that fails is printed with its story and its number, and replays by
`python tests/benchmarks/faults.py --only PART NUMBER`. `--parts PART ...` runs some of the parts.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # before the folder of the tests, which has a `pipelines` too
sys.path.insert(1, str(ROOT / "tests"))
sys.path.insert(2, str(ROOT / "tests" / "benchmarks"))

if TYPE_CHECKING:
    from fault_parts import Part, Try

NAMES = ("moves", "stages", "cycles")
PAGE = ROOT / "docs" / "reliability.md"
Rows = dict[tuple[str, ...], Counter[str]]


def main() -> int:
    """Run the tries of some parts, or one try, and write the counts."""
    # Here, because every process that is killed imports this file, and must be quick.
    from fault_parts import PARTS, Place

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--only", nargs=2, metavar=("PART", "NUMBER"), help="One try to replay.")
    parser.add_argument("--minutes", type=float, help="Begin no try of a part after this time.")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    names, number = options.parts, None
    if options.only:
        word = options.only[1]
        names, number = [options.only[0]], int(word) if word.isdecimal() else None
        if names[0] not in NAMES or number is None:
            parser.error(
                f"--only {' '.join(options.only)}: expected one of {', '.join(NAMES)} and the "
                f"number of a try, as in 'LOST stages 12: ...'"
            )
    num_lost = 0
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        place = Place(Path(scratch), stack)
        for name in names:
            tries = _wanted(PARTS[name].tries(place), number, options.minutes)
            started = time.monotonic()
            rows, lost = _count(name, tries)
            num_lost += len(lost)
            if number is None:
                wall_s = time.monotonic() - started
                _write(name, _table(PARTS[name], rows, wall_s, options.minutes))
            elif not rows:
                parser.error(f"{name} has no try number {number}; expected one that was printed")
            else:
                _tell(f"{name} {number}: {'lost' if lost else 'survived'}")
    return int(num_lost > 0)


def _wanted(tries: "Iterator[Try]", number: int | None, minutes: float | None) -> "Iterator[Try]":
    """Yield the one try of a number, or all that begin in time."""
    started = None
    for each in tries:
        started = started or time.monotonic()  # The first one waits until the world is made.
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            return
        if number in (None, each.number):
            yield each


def _count(name: str, tries: "Iterator[Try]") -> tuple[Rows, list[str]]:
    """Run tries, and return the counts by row and the stories of what was lost."""
    rows: Rows = {}
    lost = []
    for count, each in enumerate(tries, start=1):
        row = rows.setdefault(each.row, Counter())
        row["tries"] += 1
        try:
            row += Counter(each.run() or {})
        except AssertionError as error:
            row["lost"] += 1
            lost.append(each.story)
            _tell(f"LOST {name} {str(error)[:2000]}")
        if count % 10 == 0:
            _tell(f"{time.strftime('%T')} {name}: {count} tries, {len(lost)} lost")
    return rows, lost


def _table(part: "Part", rows: Rows, wall_s: float, minutes: float | None) -> str:
    total, gone = (sum(row[what] for row in rows.values()) for what in ("tries", "lost"))
    heads = [*part.names, "tries", "survived", "lost", *part.extras]
    shortened = (
        f", in the order of the draw, as many as began in {minutes:g} minutes" if minutes else ""
    )
    lines = [
        f"{total} tries, {part.says}{shortened}, in {wall_s:.0f} s: {gone} lost.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    by_order = {name: (part.order.index(name[0]), name) for name in rows} if part.order else {}
    for name in sorted(rows, key=by_order.__getitem__) if part.order else rows:
        row = rows[name]
        counts = [row["tries"], row["tries"] - row["lost"], row["lost"]]
        cells = [*name, *map(str, counts), *(str(row[extra]) for extra in part.extras)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _write(name: str, table: str) -> None:
    begin, end = f"<!-- {name} begin -->\n", f"<!-- {name} end -->\n"
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text(f"{before}{begin}{table}\n{end}{rest.split(end)[1]}")
    _tell(table)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
