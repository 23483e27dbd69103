"""Requests that wait are scored together, by some threads; how many may wait is bounded.

Not for what a request holds (`training.bundle.ranking_requests`). Tested in
tests/pipelines/serving/test_batching.py.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pipelines.contracts.errors import HomefeedError
from pipelines.serving.champion import Served
from training.bundle.ranking_requests import Decoded, Ranked, RequestRefusedError

MOST_WAITING = 20_000
"""Candidates that wait at most; a request beyond that is sent away."""
MOST_AT_ONCE = 128
"""Candidates of one pass, unless one request has more. A CPU's time per candidate hardly falls
beyond, and who came last would wait for the whole pass."""
_MEMORY = 0.9
"""How much of the measured speed stays, where a pass adds to it."""


class TooBusyError(HomefeedError):
    """As many requests wait as may wait: 429."""


class TooLateError(HomefeedError):
    """A request's deadline cannot be kept, or has passed: 503."""


@dataclass(frozen=True)
class _Waiting:
    request: Decoded
    served: Served
    arrived: float
    answer: "Future[Answer]"


@dataclass(frozen=True)
class Answer:
    """What a request gets, by which model, and how long it took."""

    request: Decoded
    ranked: Ranked
    served: Served
    waited_s: float
    scored_s: float  # Of the whole pass.
    num_requests: int  # In the pass.


class Batcher:
    """Takes requests from any thread, and scores them in those that `run`.

    Args:
        score: Scores the requests of one pass.
        num_threads: How many threads run.
    """

    def __init__(
        self, score: Callable[[Served, Sequence[Decoded]], list[Ranked]], num_threads: int = 1
    ) -> None:
        self._score, self._num_threads = score, num_threads
        self._waiting, self._num_candidates = deque[_Waiting](), 0
        self._changed, self._is_stopped = threading.Condition(), False
        self.seconds_per_candidate = 0.0  # As the last passes have shown.

    @property
    def num_waiting(self) -> int:
        """Candidates that wait."""
        return self._num_candidates

    def submit(self, request: Decoded, served: Served) -> "Future[Answer]":
        """Let a request wait for the next pass.

        Raises:
            TooBusyError: too many wait.
            TooLateError: with those before it, its deadline would pass.
        """
        with self._changed:
            ahead = self._num_candidates + request.num_candidates
            if ahead > MOST_WAITING and self._waiting:
                raise TooBusyError(
                    f"{self._num_candidates:,} candidates wait; expected at most {MOST_WAITING:,}; "
                    f"try again later, or start more servers"
                )
            alone = self._num_candidates / self._num_threads + request.num_candidates
            expected_ms = 1000 * alone * self.seconds_per_candidate
            if request.deadline_ms is not None and expected_ms > request.deadline_ms:
                raise TooLateError(
                    f"an answer is expected in {expected_ms:.0f} ms; the request gives "
                    f"{request.deadline_ms:.0f}"
                )
            waiting = _Waiting(request, served, time.perf_counter(), Future())
            self._waiting.append(waiting)
            self._num_candidates = ahead
            self._changed.notify()
        return waiting.answer

    def run(self) -> None:
        """Score until `stop`; whoever waits then is answered first."""
        while batch := self._next():
            started = time.perf_counter()
            in_time = []
            for each in batch:
                waited_ms = 1000 * (started - each.arrived)
                if each.request.deadline_ms is not None and waited_ms > each.request.deadline_ms:
                    late = TooLateError(f"it has waited {waited_ms:.0f} ms, beyond its deadline")
                    each.answer.set_exception(late)
                elif each.answer.set_running_or_notify_cancel():
                    in_time.append(each)
            if in_time:
                self._answer(in_time, started)

    def stop(self) -> None:
        """Let `run` end when nobody waits any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _next(self) -> list[_Waiting]:
        """Return requests for one model, once there are some; none where it is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_stopped)
            batch, num = list[_Waiting](), 0
            share = len(self._waiting) / self._num_threads  # The other threads take theirs.
            while self._waiting and (not batch or self._waiting[0].served is batch[0].served):
                more = self._waiting[0].request.num_candidates
                if batch and (num + more > MOST_AT_ONCE or len(batch) >= share):
                    break
                batch.append(self._waiting.popleft())
                num += more
            self._num_candidates -= num
            return batch

    def _answer(self, batch: list[_Waiting], started: float) -> None:
        try:
            found = self._score(batch[0].served, [each.request for each in batch])
        except Exception as error:  # noqa: BLE001  # Each of them is told; the next ones may do.
            for each in batch:
                each.answer.set_exception(error)
            return
        scored_s = time.perf_counter() - started
        num = sum(each.request.num_candidates for each in batch)
        with self._changed:
            kept = _MEMORY if self.seconds_per_candidate else 0.0
            self.seconds_per_candidate *= kept
            self.seconds_per_candidate += (1 - kept) * scored_s / num
        for each, ranked in zip(batch, found, strict=True):
            if ranked.trouble:
                each.answer.set_exception(RequestRefusedError(ranked.trouble))
                continue
            waited_s = started - each.arrived
            answer = Answer(each.request, ranked, each.served, waited_s, scored_s, len(batch))
            each.answer.set_result(answer)
