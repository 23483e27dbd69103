"""Counts the tries of `make bench-faults`, and writes them into docs/reliability.md.

Every pair of a point and an actor once, and then draws, by a seed, of a second kill on the way of
the repetition. A try that fails is printed with its story and its seed, and replays by
`python tests/benchmarks/faults.py --only NUMBER`.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # before the folder of the tests, which has a `pipelines` too
sys.path.insert(1, str(ROOT / "tests"))

from support.killed_moves import ACTIONS, ACTORS, points, try_once  # noqa: E402  needs the path

SEED, NUM_DRAWN = 11, 700
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- counts begin -->\n", "<!-- counts end -->\n"


@dataclass(frozen=True)
class Try:
    """One try, named by its number."""

    number: int
    action: str
    actor: str
    places: tuple[int, ...]
    story: str


def all_tries(folder: Path) -> Iterator[Try]:
    """Yield every pair of point and actor once, and then the draws with two kills."""
    names = {action: points(folder / f"dry-{i}", action) for i, action in enumerate(ACTIONS)}
    single = [
        (action, actor, (place,))
        for action in ACTIONS
        for actor in ACTORS
        for place in range(len(names[action]))
    ]
    draw = random.Random(SEED)
    drawn = []
    for _ in range(NUM_DRAWN):
        action, actor, places = draw.choice(single)
        drawn.append((action, actor, (*places, draw.randrange(len(names[action])))))
    for number, (action, actor, places) in enumerate([*single, *drawn]):
        killed = " and ".join(names[action][place] for place in places)
        yield Try(number, action, actor, places, f"{number}: {action}, killed {killed}; {actor}")


def main() -> int:
    """Run all tries, or one, and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, help="Number of the one try to replay.")
    only = parser.parse_args().only
    logging.disable(logging.WARNING)
    started = time.monotonic()
    tried, lost = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    pairs = set()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for each in all_tries(folder):
            if only not in (None, each.number):
                continue
            kind = (each.action, "one kill" if len(each.places) == 1 else "two kills")
            tried[kind] += 1
            pairs.add((each.action, each.places[0], each.actor))
            try:
                try_once(folder / f"t{each.number}", *_arguments(each))
            except AssertionError as error:
                lost[kind] += 1
                _tell(f"LOST {each.story}: {str(error).splitlines()[0]}")
            if each.number % 100 == 99:
                _tell(f"{each.number + 1} tries, {sum(lost.values())} lost")
    if only is None:
        _write(tried, lost, len(pairs), time.monotonic() - started)
    return 1 if lost else 0


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _arguments(each: Try) -> tuple[str, str, tuple[int, ...], str]:
    return each.action, each.actor, each.places, each.story


def _write(
    tried: Counter[tuple[str, str]], lost: Counter[tuple[str, str]], num_pairs: int, wall_s: float
) -> None:
    rows = [
        f"| {action} | {kills} | {number} | {number - lost[action, kills]} | "
        f"{lost[action, kills]} |"
        for (action, kills), number in tried.items()
    ]
    total, gone = sum(tried.values()), sum(lost.values())
    table = "\n".join(
        [
            f"{total} tries over {num_pairs} pairs of a point and an actor, seed {SEED}, in "
            f"{wall_s:.0f} s: {gone} lost.",
            "",
            "| action | killed | tries | survived | lost |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table}\n{END}{rest.split(END)[1]}")
    _tell(table)


if __name__ == "__main__":
    sys.exit(main())
