"""Promotion, rollback, force and repair before a registry that loses answers, also by chance.

Hypothesis draws sequences of what people and cycles do, with requests and answers that are lost on
the way, and prints the shortest sequence that breaks what must always hold.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipelines.contracts.errors import (
    ConfigurationError,
    PromotionRefusedError,
    RecordDisagreesError,
    TrackingEntryMissingError,
    TrackingUnavailableError,
)
from pipelines.registry import history, registry
from pipelines.registry.history import Move
from support.points import attempt
from support.record_world import World, record_world

LOST = strategies.lists(
    strategies.sampled_from(["request", "answer", "all that follows", "to a proxy"]), max_size=1
)
COMMANDS = (
    *(("promote", "2"), ("promote", "3"), ("force", "2"), ("force", "3"), ("resolve",)),
    *(("rollback", "1"), ("rollback", "2"), ("rollback", "3")),
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with record_world(tmp_path / "world") as found:
        yield found


def acts(world: World, act: str) -> Callable[[], None]:
    """Bring a world to where a move is to be made, and return that move."""
    if act == "rollback":
        world.promote("2")
        return world.rollback
    return lambda: getattr(world, act)("2")


REFUSALS = ("ConfigurationError", "PromotionRefusedError", "TrackingEntryMissingError")
TARGETS = {"promote": "2", "force": "2", "rollback": "1"}
SPOILED = (ConfigurationError, TrackingEntryMissingError, TrackingUnavailableError)
"""What a 401 or a login page, a 404, and an answer that was cut become."""


@pytest.mark.parametrize("is_shut_out", [False, True])
@pytest.mark.parametrize("error", SPOILED)
def test_an_answer_that_is_not_understood_gives_nothing_up(
    world: World, error: type[Exception], is_shut_out: bool
) -> None:
    """The decision stands, and the same command carries it out, once."""

    def refuse(*_: object, **__: object) -> None:
        raise error("it was spoiled")

    with pytest.MonkeyPatch.context() as patch:

        def point(*_: object) -> None:
            if is_shut_out:  # Nothing can be read afterwards, either.
                patch.setattr(registry, "read_champion", refuse)
            refuse()

        patch.setattr(registry, "point_champion_at", point)
        found = "not known whether it moved" if is_shut_out else "still test_ranker v1"
        with pytest.raises(error, match=f"that stands; .* {found}"):
            world.promote("2")
    state = world.look()
    assert (state.serves, state.recorded, state.disagreement()) == ("1", "2", "")
    world.promote("2")
    known = world.look().history
    assert world.registry.alias == "2" and known.pending is None and len(known.entries) == 2
    assert history.was_set_again(known, known.moves[-1])


@pytest.mark.parametrize("is_pending", [True, False])
def test_a_write_that_arrives_late_is_its_move_or_stops_all_and_both_readings_are_told(
    world: World, is_pending: bool
) -> None:
    world.registry.lose = ["late"]
    with pytest.raises(TrackingUnavailableError, match="that stands; .* may still arrive"):
        world.promote("2")
    if is_pending:
        world.registry.arrive()
        world.resolve()
        assert world.look().history.pending is None and world.look().serves == "2"
        return
    world.rollback()  # It carries the promotion out first, and takes it down.
    assert world.look().serves == "1"
    world.registry.arrive()
    for act in (world.resolve, world.rollback, lambda: world.promote("3")):
        with pytest.raises(RecordDisagreesError, match="never seen to end, .* or the alias"):
            act()
    assert world.registry.alias == "2"
    world.repair(restores=True)
    assert (world.look().serves, world.look().disagreement()) == ("1", "")


def test_the_answer_to_a_move_is_waited_for_for_five_seconds_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, seen = "MLFLOW_HTTP_REQUEST_TIMEOUT", []
    monkeypatch.setattr(world.registry, "point", lambda what: seen.append(os.environ.get(name)))
    for number, before in (("2", "20"), ("1", "3"), ("2", None)):
        monkeypatch.setenv(name, before) if before else monkeypatch.delenv(name, raising=False)
        registry.point_champion_at(world.registry, world.models[number])
        assert os.environ.get(name) == (before or "20")
    assert seen == ["5", "5", "3", "3", "5", "5"]


@pytest.mark.parametrize("act", TARGETS)
def test_what_is_carried_on_is_looked_at_again_first(world: World, act: str) -> None:
    """The version was altered after the attempt that decided the move had looked at it."""
    move, sound = acts(world, act), world.models[TARGETS[act]]
    world.registry.lose = ["request"]
    with pytest.raises(TrackingUnavailableError):
        move()
    before = world.registry.alias
    world.registry.add(sound.model_copy(update={"model_digest": "e" * 64}))
    with pytest.raises(PromotionRefusedError, match="in the registry.*history repair --to-vers"):
        move()
    assert world.registry.alias == before
    world.registry.add(sound)
    move()
    assert world.registry.alias == world.look().recorded == TARGETS[act]


@pytest.mark.parametrize("act", ["promote", "rollback"])
def test_a_model_is_looked_at_off_the_workspaces_disk_and_a_move_writes_a_few_small_files(
    world: World, act: str
) -> None:
    """So a full disk keeps nobody from going back."""
    move, fetched = acts(world, act), list[Path]()
    top = world.folder / "workspace" / "history"
    before = set(top.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "download_bundle", lambda *words: fetched.append(words[2]))
        move()
    assert fetched and not any(each.is_relative_to(world.folder) for each in fetched)
    written = sorted(path.name.partition(".")[2] for path in set(top.rglob("*")) - before)
    assert written == ["followed.json", "json"]


class Record(RuleBasedStateMachine):
    """Cycles and people who act on one record, and what must hold after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._context = record_world(Path(self._folder.name) / "world")
        self.world = self._context.__enter__()
        self.taken_down: set[str] = set()  # By a rollback; only a person brings these back.

    def teardown(self) -> None:
        self._context.__exit__(None, None, None)
        self._folder.cleanup()

    def _do(self, lost: list[str], command: str, *arguments: object) -> bool:
        """Give a command, and return whether it ended well."""
        asked, recorded = self.world.registry, self.world.look().recorded
        before, asked.lose = asked.alias, list(lost)
        error = attempt(lambda: getattr(self.world, command)(*arguments))
        asked.lose, asked.is_down = [], False
        if error == "TrackingUnavailableError":
            # Either nothing moved, or what is on record as decided.
            assert self.world.look().history.pending is not None or asked.alias == before
        elif error:
            # What had been decided before may have been carried out first, and nothing else.
            assert error in REFUSALS and asked.alias in (before, recorded)
        return error == ""

    @rule(command=strategies.sampled_from(COMMANDS), lost=LOST)
    def give(self, command: tuple[str, ...], lost: list[str]) -> None:
        name, *version = command
        before, is_done = self.world.look().recorded, self._do(lost, *command)
        if name == "promote" and version[0] in self.taken_down:
            assert self.world.look().recorded == before  # A person's word stands.
        if is_done and name in ("force", "rollback"):
            assert self.world.registry.alias == version[0]
            if name == "rollback":
                self.taken_down.add(str(self._moves()[-1].previous.version))
            self.taken_down.discard(version[0])

    @rule(lost=LOST, times=strategies.integers(1, 3))
    def roll_back(self, lost: list[str], times: int) -> None:
        """Once, or again and again, as somebody does who sees no answer: it is one rollback."""
        before = self._moves()
        for _ in range(times):
            self._do(lost, "rollback")
        made = [move for move in self._moves()[len(before) :] if move.kind == "rollback"]
        assert len(made) <= (0 if before[-1].kind == "rollback" else 1)
        for move in made:
            # What a hand had put there was never accepted; what a person had begun is finished.
            assert move.model.version in {each.model.version for each in self._moves()[:-1]}
            self.taken_down.add(str(move.previous and move.previous.version))

    @rule(version=strategies.sampled_from([None, "1", "2", "3"]), restores=strategies.booleans())
    def meddle_and_repair(self, version: str | None, restores: bool) -> None:
        self.world.resolve()  # Nothing is in doubt when somebody meddles.
        recorded = self.world.look().recorded
        self.world.registry.alias = version
        if version != recorded:
            with pytest.raises(RecordDisagreesError):
                self.world.rollback("1" if version != "1" else "2")
            assert self.world.registry.alias == version
        is_restored = restores or version is None
        self.world.repair(is_restored)
        state = self.world.look()
        assert state.serves == state.recorded == (recorded if is_restored else version)
        self.taken_down.discard(str(state.serves))

    def _moves(self) -> list[Move]:
        return self.world.look().history.moves

    @invariant()
    def the_record_is_whole_and_true(self) -> None:
        state, moves = self.world.look(), self._moves()
        assert state.history.damaged == () and state.disagreement() == ""
        assert state.history.pending is not None or state.serves == state.recorded
        promoted = [move.run_uri for move in moves if move.kind == "promotion"]
        assert len(set(promoted)) == len(promoted)  # A cycle promotes once.
        for earlier, later in pairwise(moves):  # Each begins where the one before ended.
            assert later.kind == "outside" or later.previous.version == earlier.model.version


@pytest.mark.filterwarnings("ignore")
class TestRecord(Record.TestCase):
    settings = settings(
        max_examples=40,
        stateful_step_count=12,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
class TestRecordAtLength(Record.TestCase):
    settings = settings(TestRecord.settings, max_examples=200)
