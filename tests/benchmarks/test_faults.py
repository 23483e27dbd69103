import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the benchmarks are scripts, not a package

import fault_parts  # noqa: E402
import faults  # noqa: E402

from support.faulty_cycles import plans  # noqa: E402
from support.faulty_proxy import FAULTS  # noqa: E402
from support.killed_stages import ACTORS, ASKING, NOBODY, draw_tries  # noqa: E402
from support.stage_world import STAGES  # noqa: E402


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("moves", "99999"), "moves has no try number 99999"),
        (("nothing", "1"), "expected one of moves, stages, cycles"),
        (("moves", "first"), "the number of a try"),
    ],
)
def test_a_try_that_is_not_there_is_no_success(words: tuple[str, str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "faults.py"), "--only", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and said in done.stderr


def test_a_short_run_tries_every_stage_with_every_actor() -> None:
    points = [
        (f"{when} {verb} a file", number)
        for when in ("before", "after")
        for verb in ("open", "rename", "unlink")
        for number in range(9)
    ]
    tries = draw_tries(dict.fromkeys(STAGES, points), 5, per_actor=2)
    pairs = {(stage, NOBODY) for stage in STAGES} | {(s, a) for s in ASKING for a in ACTORS}
    assert {(each.stage, each.actor) for each in tries[: len(pairs)]} == pairs
    assert {("train_challenger", actor) for actor in ACTORS} <= pairs
    counts = Counter((each.stage, each.actor) for each in tries)
    assert counts == {pair: 6 if pair[1] == NOBODY else 2 for pair in pairs}
    assert [each.number for each in tries] == list(range(len(tries)))


def test_a_short_run_has_cycles_of_both_kinds() -> None:
    found = plans(2, (7,))
    assert [plan.kind for plan in found[:2]] == [
        "5% of requests spoiled",
        "every 7th request spoiled",
    ]
    assert {plan.fault for plan in found} == {"", *FAULTS}
    assert [plan.number for plan in found] == list(range(4 + len(FAULTS)))


def test_what_was_lost_is_counted() -> None:
    part = fault_parts.PARTS["stages"]
    row = Counter({"tries": 5, "lost": 1})
    table = faults._table(part, {("alert", "48", "alone"): row}, 60.0, None)
    assert table.splitlines()[-1] == "| alert | 48 | alone | 5 | 4 | 1 |"
    assert "in the order of the draw" not in table
    assert "in the order of the draw, as many as" in faults._table(part, {}, 60.0, 7)
