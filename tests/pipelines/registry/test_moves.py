"""Promotion, rollback, force and repair before a registry that loses answers, also by chance.

Hypothesis draws sequences of what people and cycles do, with requests and answers that are lost on
the way, and prints the shortest sequence that breaks what must always hold.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from mlflow import MlflowClient

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    PromotionRefusedError,
    RecordDisagreesError,
    TrackingAccessError,
    TrackingEntryMissingError,
    TrackingUnavailableError,
)
from pipelines.places import store_lease
from pipelines.registry import registry
from pipelines.registry.history import HistoryEntry
from support.record_world import World, record_world

LOST = strategies.lists(
    strategies.sampled_from(["request", "answer", "all that follows", "to a proxy"]), max_size=1
)
VERSIONS = strategies.sampled_from(["1", "2", "3"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with record_world(tmp_path / "world") as found:
        yield found


def altered(world: World, version: str) -> ModelRef:
    """Give a version other files, and tags that fit them."""
    model = world.models[version]
    world.registry.add(model.model_copy(update={"model_digest": "e" * 64}))
    return model


@pytest.mark.parametrize("act", ["promote", "force", "rollback"])
def test_a_refusal_of_what_has_arrived_is_a_move_that_was_made(world: World, act: str) -> None:
    """A proxy answered 404 after MLflow had moved the alias."""
    arguments = [] if act == "rollback" else ["2"]
    if act == "rollback":
        world.promote("2")
    world.registry.lose = ["to a proxy"]
    getattr(world, act)(*arguments)
    state = world.look()
    assert state.serves == state.recorded == ("1" if act == "rollback" else "2")


def test_a_refusal_is_given_up_where_the_champion_is_what_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TrackingEntryMissingError("it does not have it")

    monkeypatch.setattr(registry, "point_champion_at", refuse)
    with pytest.raises(TrackingEntryMissingError, match="champion is still v1, and nothing is mov"):
        world.promote("2")
    state = world.look()
    assert (state.serves, state.history.pending, state.disagreement()) == ("1", None, "")


def test_a_refusal_after_which_nothing_can_be_read_gives_nothing_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, read = registry.point_champion_at, registry.read_champion_version

    def shut_out(*_: object) -> str:
        raise TrackingAccessError("it does not let this user in")

    def refuse(client: MlflowClient, model: ModelRef) -> None:
        move(client, model)
        monkeypatch.setattr(registry, "read_champion_version", shut_out)
        shut_out()

    monkeypatch.setattr(registry, "point_champion_at", refuse)
    with pytest.raises(TrackingAccessError, match="not known whether it did"):
        world.promote("2")
    monkeypatch.setattr(registry, "read_champion_version", read)
    assert world.look().unsettled is not None
    world.promote("2")
    assert world.look().recorded == "2"


def test_a_request_that_arrives_after_its_intent_was_given_up_is_told_and_mended(
    world: World,
) -> None:
    world.registry.lose = ["late"]
    with pytest.raises(TrackingUnavailableError, match="not moved so far: .* may still arrive"):
        world.promote("2")
    world.resolve()
    assert world.look().history.pending is None
    world.registry.arrive()
    with pytest.raises(RecordDisagreesError, match="promotion of test_ranker v2 was given up at"):
        world.resolve()
    world.repair(restores_alias=True)
    state = world.look()
    assert (state.serves, state.disagreement()) == ("1", "")


def test_a_request_that_arrives_while_its_intent_is_pending_is_a_move_that_was_made(
    world: World,
) -> None:
    world.registry.lose = ["late"]
    with pytest.raises(TrackingUnavailableError, match="may still arrive"):
        world.promote("2")
    world.registry.arrive()
    world.resolve()
    assert world.look().recorded == "2"


def test_the_answer_to_a_move_is_waited_for_for_less_than_a_lease_has_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.ALIAS_TIMEOUT_S < store_lease.MARGIN * store_lease.TTL_S
    name, seen = "MLFLOW_HTTP_REQUEST_TIMEOUT", []
    monkeypatch.setattr(world.registry, "point", lambda what: seen.append(os.environ.get(name)))
    for number, before in (("2", "20"), ("1", "3"), ("2", None)):
        monkeypatch.setenv(name, before) if before else monkeypatch.delenv(name, raising=False)
        registry.point_champion_at(world.registry, world.models[number])
        assert os.environ.get(name) == before
    assert seen == ["5", "5", "3", "3", "5", "5"]


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("promote", PromotionRefusedError),
        ("force", PromotionRefusedError),
        ("rollback", DataContractError),
    ],
)
def test_what_is_carried_on_is_looked_at_again_first(
    world: World, act: str, error: type[Exception]
) -> None:
    """The version was altered after the attempt that began the move had looked at it."""
    target, arguments = ("1", []) if act == "rollback" else ("2", ["2"])
    if act == "rollback":
        world.promote("2")
    world.registry.lose = ["request"]
    with pytest.raises(TrackingUnavailableError):
        getattr(world, act)(*arguments)
    sound, before = altered(world, target), world.registry.alias
    with pytest.raises(error, match="in its tags|in the registry"):
        getattr(world, act)(*arguments)
    assert world.registry.alias == before
    world.registry.add(sound)
    getattr(world, act)(*arguments)
    assert world.registry.alias == world.look().recorded == target


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
        before = self.world.registry.alias
        self.world.registry.lose = list(lost)
        try:
            getattr(self.world, command)(*arguments)
        except TrackingUnavailableError:
            self.world.registry.is_down = False
            # Either nothing moved, or what is on record as begun.
            begun = self.world.look().history.pending
            assert begun is not None or self.world.registry.alias == before
            assert self.world.registry.alias in (before, begun and begun.intent.entry.model.version)
            return False
        except (ConfigurationError, PromotionRefusedError, TrackingEntryMissingError):
            assert self.world.registry.alias == before
            return False
        finally:
            self.world.registry.lose, self.world.registry.is_down = [], False
        return True

    @rule(number=strategies.sampled_from(["2", "3"]), lost=LOST)
    def promote(self, number: str, lost: list[str]) -> None:
        before = self.world.registry.alias
        self._do(lost, "promote", number)
        if number in self.taken_down:
            assert self.world.registry.alias == before  # A person's word stands.

    @rule(lost=LOST, times=strategies.integers(1, 3))
    def roll_back(self, lost: list[str], times: int) -> None:
        """Once, or again and again, as somebody does who sees no answer: it is one rollback."""
        before = len(self._rollbacks())
        state = self.world.look()
        was_back = self._last_made().kind == "rollback" and state.history.pending is None
        for _ in range(times):
            self._do(lost, "rollback")
        made = self._rollbacks()[before:]
        assert len(made) <= (0 if was_back else 1)
        allowed = {e.model.version for _, e in self.world.look().history.entries[:-1]}
        if state.history.pending is not None:
            allowed.add(state.history.pending.intent.entry.model.version)
        for entry in made:
            # What a hand had put there was never accepted; what a person had begun is finished.
            assert entry.model.version in allowed
            self.taken_down.add(str(entry.previous and entry.previous.version))

    @rule(version=VERSIONS, lost=LOST)
    def roll_back_to(self, version: str, lost: list[str]) -> None:
        if self._do(lost, "rollback", version):
            assert self.world.registry.alias == version
            self.taken_down.add(str(self._last_made().previous.version))
            self.taken_down.discard(version)

    @rule(number=strategies.sampled_from(["2", "3"]), lost=LOST)
    def force(self, number: str, lost: list[str]) -> None:
        if self._do(lost, "force", number):
            assert self.world.registry.alias == number
            self.taken_down.discard(number)

    @rule()
    def begin_a_cycle(self) -> None:
        self._do([], "resolve")

    @rule(version=strategies.sampled_from([None, "1", "2", "3"]), restores=strategies.booleans())
    def meddle_and_repair(self, version: str | None, restores: bool) -> None:
        self.world.resolve()  # Nothing is in doubt when somebody meddles.
        recorded = self.world.look().recorded
        self.world.registry.alias = version
        if version != recorded:
            with pytest.raises(ConfigurationError):
                self.world.rollback("1" if version != "1" else "2")
            assert self.world.registry.alias == version
        is_restored = restores or version is None
        self.world.repair(is_restored)
        state = self.world.look()
        assert state.serves == state.recorded == (recorded if is_restored else version)
        self.taken_down.discard(str(state.serves))

    def _rollbacks(self) -> list[HistoryEntry]:
        entries = [entry for _, entry in self.world.look().history.entries]
        return [entry for entry in entries if entry.kind == "rollback"]

    def _last_made(self) -> HistoryEntry:
        return self.world.look().history.entries[-1][1]

    @invariant()
    def the_record_is_whole_and_true(self) -> None:
        state = self.world.look()
        assert state.history.damaged == ()
        assert state.disagreement() == ""
        if state.history.pending is None:
            assert state.serves == state.recorded

    @invariant()
    def a_cycle_promotes_once(self) -> None:
        made = [e for _, e in self.world.look().history.entries if e.kind == "promotion"]
        assert len({entry.run_uri for entry in made}) == len(made)

    @precondition(lambda self: self.world.look().history.pending is None)
    @invariant()
    def each_move_begins_where_the_one_before_ended(self) -> None:
        entries = [entry for _, entry in self.world.look().history.entries]
        for earlier, later in zip(entries, entries[1:], strict=False):
            if later.kind != "outside":
                assert later.previous is not None
                assert later.previous.version == earlier.model.version


TestRecord = pytest.mark.filterwarnings("ignore")(Record.TestCase)
TestRecord.settings = settings(
    max_examples=120,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
