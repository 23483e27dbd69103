"""Promotion, rollback, force and repair as a state machine, whose registry loses answers.

Hypothesis draws sequences of what people and cycles do, with requests and answers that are lost on
the way, and prints the shortest sequence that breaks what must always hold.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipelines.contracts.errors import (
    ConfigurationError,
    PromotionRefusedError,
    TrackingUnavailableError,
)
from pipelines.registry.history import HistoryEntry
from support.record_world import record_world

LOST = strategies.lists(
    strategies.sampled_from(["request", "answer", "all that follows"]), max_size=1
)
VERSIONS = strategies.sampled_from(["1", "2", "3"])


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
        except (ConfigurationError, PromotionRefusedError):
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
        served = {e.model.version for _, e in self.world.look().history.entries[:-1]}
        for entry in made:
            # What a hand had put there was never accepted; what a person had begun is finished.
            assert entry.model.version in served or state.history.pending is not None
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
