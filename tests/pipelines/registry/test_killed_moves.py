"""Promotion, rollback and force, killed at every point, with somebody else acting in between.

Nothing is drawn at random here: every pair of a point and an actor is tried, and what must hold
afterwards is in `support.killed_moves`. `make bench-faults` tries more, with two kills in a row.
"""

from pathlib import Path

import pytest

from support.killed_moves import ACTIONS, ACTORS, points, try_once
from support.record_world import NAME, kill_at, record_world


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_any_point_loses_nothing(tmp_path: Path, action: str, actor: str) -> None:
    names = points(tmp_path / "dry", action)
    assert len(names) >= 8
    for place, name in enumerate(names):
        story = f"{action}, killed {name} (point {place}), then {actor}"
        try_once(tmp_path / f"w{place}", action, actor, [place], story)


def test_the_file_that_a_killed_writer_had_begun_is_counted_until_the_next_one_comes(
    tmp_path: Path,
) -> None:
    place = points(tmp_path / "dry", "roll back").index("before link 00000003.json")
    with record_world(tmp_path / "world") as world:
        world.promote("2")
        assert kill_at(world, world.rollback, place) == "killed"
        [left] = world.leftovers()
        assert left.startswith(f"history/{NAME}/.00000003.json.")
        world.rollback()
        assert world.leftovers() == []
