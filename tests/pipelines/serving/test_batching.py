"""What waits is scored in one pass, in bounds, and in time or not at all."""

import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.serving import batching
from pipelines.serving.batching import Batcher, TooBusyError, TooLateError
from support.serving import beside
from training.bundle.ranking_requests import Decoded

ONE, OTHER = SimpleNamespace(name="one"), SimpleNamespace(name="other")


class Text(str):
    """An answer that can be told from others."""

    trouble = ""


class Scored:
    """A model that waits until it may go on, and keeps what was asked in each pass."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.may_go_on, self.is_busy = threading.Event(), threading.Event()
        self.may_go_on.set()

    def __call__(self, served: Any, requests: Sequence[Decoded]) -> list[Text]:
        self.is_busy.set()
        assert self.may_go_on.wait(10)
        self.passes.append([each.request_id for each in requests])
        if "broken" in self.passes[-1]:
            raise ValueError("the model failed")
        return [Text(f"{each.request_id} by {served.name}") for each in requests]

    def hold(self) -> None:
        self.may_go_on.clear()
        self.is_busy.clear()


def request(name: str, num: int = 10, deadline_ms: float | None = None) -> Decoded:
    return Decoded(name, deadline_ms, list(range(num)), {})


@pytest.fixture
def scored() -> Scored:
    return Scored()


@pytest.fixture
def batcher(scored: Scored) -> Iterator[Batcher]:
    found = Batcher(scored)  # type: ignore[arg-type]
    with beside(found.run, end=found.stop):
        yield found
        scored.may_go_on.set()


def test_what_waits_is_scored_in_one_pass_but_for_another_model(
    batcher: Batcher, scored: Scored
) -> None:
    scored.hold()
    first = batcher.submit(request("a"), ONE)
    assert scored.is_busy.wait(10)
    others = [batcher.submit(request(name), ONE) for name in "bc"]
    last = [batcher.submit(request(name), OTHER) for name in "de"]
    assert batcher.num_waiting == 40
    scored.may_go_on.set()
    answers = [each.result(10) for each in (first, *others, *last)]
    assert [each.ranked for each in answers] == [
        "a by one", "b by one", "c by one", "d by other", "e by other"]  # fmt: skip
    assert scored.passes == [["a"], ["b", "c"], ["d", "e"]]
    assert [each.num_requests for each in answers] == [1, 2, 2, 2, 2]


def test_who_cannot_be_answered_in_time_is_told_at_once_or_when_it_is_late(
    batcher: Batcher, scored: Scored
) -> None:
    scored.hold()
    first = batcher.submit(request("a"), ONE)
    assert scored.is_busy.wait(10)
    late = batcher.submit(request("b", deadline_ms=30), ONE)
    time.sleep(0.1)
    scored.may_go_on.set()
    assert first.result(10).ranked == "a by one"
    with pytest.raises(TooLateError, match="it has waited .* ms, beyond its deadline"):
        late.result(10)
    assert batcher.seconds_per_candidate > 0.009
    with pytest.raises(TooLateError, match="an answer is expected in .* ms; the request gives 30"):
        batcher.submit(request("c", num=500, deadline_ms=30), ONE)


def test_only_so_many_wait(
    batcher: Batcher, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "MOST_WAITING", 25)
    scored.hold()
    first = batcher.submit(request("a"), ONE)
    assert scored.is_busy.wait(10)
    waiting = [batcher.submit(request(name), ONE) for name in "bc"]
    with pytest.raises(TooBusyError, match="20 candidates wait; expected at most 25; try again"):
        batcher.submit(request("d"), ONE)
    scored.may_go_on.set()
    assert [each.result(10).ranked for each in (first, *waiting)][-1] == "c by one"


def test_two_threads_score_at_once_and_a_pass_leaves_some_to_the_other(scored: Scored) -> None:
    both_are_at_work = threading.Barrier(2)

    def score(served: Any, requests: Sequence[Decoded]) -> list[str]:
        both_are_at_work.wait(10)
        return scored(served, requests)

    batcher = Batcher(score, num_threads=2)  # type: ignore[arg-type]
    answers = [batcher.submit(request(name, num=20), ONE) for name in "abc"]
    batcher.seconds_per_candidate = 0.001
    with pytest.raises(TooLateError, match="expected in 50 ms; the request gives 49"):
        batcher.submit(request("d", num=20, deadline_ms=49), ONE)
    with beside(batcher.run, batcher.run, end=batcher.stop):
        assert [each.result(10).num_requests for each in answers] == [2, 2, 1]
    assert sorted(scored.passes) == [["a", "b"], ["c"]]


def test_a_pass_that_fails_fails_for_those_in_it(batcher: Batcher) -> None:
    with pytest.raises(ValueError, match="the model failed"):
        batcher.submit(request("broken"), ONE).result(10)
    assert batcher.submit(request("a"), ONE).result(10).ranked == "a by one"
