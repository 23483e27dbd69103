"""Promotion, rollback and force, killed at every point, with somebody else acting in between.

Every point is tried with a third of the actors, and every actor with a third of the points; all
pairs with `-m exhaustive`. What must hold afterwards is in `support.killed_moves`. `make
bench-faults` tries more, with two kills in a row.
"""

import random
import time
from pathlib import Path

import pytest

from support.killed_moves import ACTIONS, ACTORS, points, try_once

LONGEST_S = 30.0


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_any_point_loses_nothing(
    tmp_path: Path, action: str, actor: str, every: int
) -> None:
    names, first = points(tmp_path / "dry", action), [*ACTORS].index(actor) % every
    assert len(names) >= 8
    for place, name in [*enumerate(names)][first::every]:
        story = f"{action}, killed {name} (point {place}), then {actor}"
        try_once(tmp_path / f"w{place}", action, actor, [place], story)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_a_drawn_point_loses_nothing_on_a_store_and_nobody_waits(
    s3_uri: str, tmp_path: Path, action: str
) -> None:
    draw, names = random.Random(action), points(tmp_path / "dry", action, f"{s3_uri}/dry")
    assert len(names) >= 8
    for number, actor in enumerate(draw.sample(sorted(ACTORS), 4)):
        place = draw.randrange(len(names))
        story = f"{action}, killed {names[place]} (point {place}), then {actor}"
        began = time.monotonic()
        try_once(tmp_path / f"w{number}", action, actor, [place], story, f"{s3_uri}/{number}")
        assert time.monotonic() - began < LONGEST_S
