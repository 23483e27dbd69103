"""What was answered, as impressions of an event log: on this disk first, then in the log.

A line is on the disk before its answer is sent, many lines by one `fsync`: of what a client knows,
no kill loses anything. Each server has a spool of its own:

    <spool>/lock                             held as long as the server lives
    <spool>/00000007.jsonl                   grows; an answer a line
    <spool>/00000006.1717243200000.sealed    has its last line; the log knows it from that ms on

A sealed file is one block of `EventLogWriter`, which counts the same block once. So a kill between
the block and the file's removal doubles nothing. What a server leaves that died, any other one on
this machine adds. Not for what people did then: who shows the answers logs the actions. Tested in
tests/pipelines/serving/test_served_log.py.
"""

import contextlib
import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    RunInProgressError,
)
from pipelines.contracts.files import hold_lock, make_folder, sync_folder
from pipelines.serving.batching import Answer
from pipelines.sources.event_log_writer import EventLogWriter
from pipelines.sources.publish import find_writers_log
from training.bundle.ranking_requests import marks_of

log = logging.getLogger(__name__)
_VERSION = "served"
"""`EventLogWriter` asks for a version of embeddings; impressions have none."""
_MAX_FILE_BYTES = 64 << 20
_SEALED = re.compile(r"(\d{8})\.(\d+)\.sealed")
_OPEN = re.compile(r"(\d{8})\.jsonl")


def kinds_of_ids(uri: str) -> Mapping[str, str]:
    """Return by column of ids what a log has: 'integer', or 'string' where it made ids of names."""
    if (found := find_writers_log(uri)) is None or not found.record.files:
        raise ConfigurationError(
            f"no event log is at {uri}; expected one that EventLogWriter wrote, with pins, because "
            f"answers are added to it; write it first (docs/event_log.md)"
        )
    settled = found.record.settled
    return {name: str(settled.get(f"kind of {name}", "integer")) for name in ("user_id", "pin_id")}


def line_of(answer: Answer, at_ms: int) -> bytes:
    """Return an answer as a line of a spool: its candidates in the order of their ranks."""
    request, ranked, order = answer.request, answer.ranked, answer.ranked.order.tolist()
    shown, marks = request.shown, marks_of(request.arrays)
    fields = {
        "request_id": request.request_id,
        "user_id": shown.user_id,
        "impressed_at": at_ms if shown.requested_at is None else shown.requested_at,
        "surface": shown.surface,
        "is_exploration": shown.is_exploration,
        "model_version": answer.served.model.version,
        "pin_id": [request.pin_ids[place] for place in order],
        "served_score": ranked.utility[order].tolist(),
        "served_marks": [marks[place] for place in order],
        "propensity": [shown.propensity[place] for place in order] if shown.propensity else None,
    }
    return json.dumps(fields).encode() + b"\n"


def rows_of(lines: Sequence[bytes], known_at_ms: int) -> dict[str, pa.Array]:
    """Return impressions from a spool's lines; one that a kill has cut is left out.

    Beyond the contract's columns, `model_version` is what ranked a row, `served_score` the number
    that it ranked it by, and `served_marks` tells what that was made of (`skew`). The log knows
    them from known_at_ms on, or when they were shown.
    """
    answers = []
    for line in lines:
        with contextlib.suppress(ValueError):  # Nobody got that answer.
            answers.append(json.loads(line))
    counts = [len(each["pin_id"]) for each in answers]
    columns: dict[str, list[Any]] = {"position": [p for num in counts for p in range(num)]}
    pairs = list(zip(answers, counts, strict=True))
    for name in ("pin_id", "served_score", "served_marks", "propensity"):
        columns[name] = [v for each, num in pairs for v in each.get(name) or [None] * num]
    of_request = ("request_id", "user_id", "impressed_at", "surface", "is_exploration")
    for name in (*of_request, "model_version"):
        columns[name] = [each[name] for each, num in pairs for _ in range(num)]
    columns["known_at"] = [max(known_at_ms, at) for at in columns["impressed_at"]]
    types = {"propensity": pa.float32(), "served_score": pa.float64()}
    return {name: pa.array(values, types.get(name)) for name, values in columns.items()}


class ServedLog:
    """The spool of one server, and the log that it is emptied into.

    Args:
        uri: The event log.
        spools: Folder of this machine's spools.
        name: This server's, of letters, digits, `.` and `-`.
        add_every_s: Seconds between two blocks of the log.

    Attributes:
        trouble: Why the last look left lines in a spool, in a sentence; '' where none was left.
    """

    def __init__(self, uri: str, spools: Path, name: str, add_every_s: float = 60.0) -> None:
        self.uri, self.kinds = uri, kinds_of_ids(uri)
        self.trouble, self._add_every_s = "", add_every_s
        self._spools, self._own = spools, spools / name
        make_folder(self._own)
        self._held = hold_lock(self._own / "lock", f"serving as {name}")
        self._held.__enter__()  # As long as this process lives.
        self._given = queue.SimpleQueue[tuple[bytes, Future[None]] | None]()
        self._writing, self._descriptor, self._size = threading.Lock(), -1, 0
        self._is_over, self._is_written = threading.Event(), threading.Event()

    def write(self, line: bytes) -> "Future[None]":
        """Keep a line; the future ends when it is on the disk, or with the disk's OSError."""
        found = Future[None]()
        self._given.put((line, found))
        return found

    def run_writer(self) -> None:
        """Write what is given, until `stop`; what waits goes to the disk together."""
        is_over = False
        while not is_over:
            taken = [self._given.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    taken.append(self._given.get_nowait())
            is_over = None in taken
            given = [each for each in taken if each is not None]
            error = self._write(b"".join(line for line, _ in given)) if given else None
            for _, future in given:
                future.set_exception(error) if error else future.set_result(None)
        self._is_written.set()

    def _write(self, lines: bytes) -> OSError | None:
        with self._writing:
            try:
                if self._descriptor < 0:
                    place = self._own / f"{self._next_number():08d}.jsonl"
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                    self._descriptor, self._size = os.open(place, flags, 0o666), 0
                    sync_folder(self._own)
                if (num := os.write(self._descriptor, lines)) != len(lines):
                    raise OSError(f"{num} of {len(lines)} bytes were written")
                os.fdatasync(self._descriptor)
                self._size += len(lines)
            except OSError as error:
                # The file goes on with its whole lines alone, or has its last, cut line now.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
                self._close()
                return error
            if self._size > _MAX_FILE_BYTES:
                self._close()
        return None

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _next_number(self) -> int:
        names = [each.name for each in self._own.iterdir()]
        return 1 + max((int(n[:8]) for n in names if _OPEN.match(n) or _SEALED.match(n)), default=0)

    def run_adding(self) -> None:
        """Add to the log what the spools hold, again and again and once more after `stop`."""
        while not self._is_over.wait(self._add_every_s):
            self.add()
        self._is_written.wait()
        self.add()

    def stop(self) -> None:
        """Let both `run` end; what is given before is written."""
        self._is_over.set()
        self._given.put(None)

    def add(self) -> None:
        """Add to the log what is in this spool, and in those of servers that died."""
        troubles = []
        for spool in sorted(each for each in self._spools.iterdir() if each.is_dir()):
            try:
                with contextlib.ExitStack() as stack:
                    if spool != self._own:
                        stack.enter_context(hold_lock(spool / "lock", "adding what is left"))
                    self._seal(spool)
                    for sealed in sorted(spool.glob("*.sealed")):
                        self._add(sealed)
            except RunInProgressError as error:
                # Another server lives there, or somebody writes the log; its own is told of.
                troubles += [f"{error}"] if spool == self._own else []
            except Exception as error:  # noqa: BLE001  # Whatever it is, the lines stay where they are.
                known = isinstance(error, HomefeedError | OSError)
                (log.warning if known else log.exception)("%s stays: %s", spool, error)
                troubles.append(f"{spool} is not in {self.uri} yet: {error}")
        self.trouble = "; ".join(troubles)

    def _seal(self, spool: Path) -> None:
        with self._writing:
            if spool == self._own:
                self._close()
            for path in sorted(spool.iterdir()):
                if found := _OPEN.fullmatch(path.name):
                    path.rename(spool / f"{found[1]}.{now_ms()}.sealed")
            sync_folder(spool)

    def _add(self, sealed: Path) -> None:
        found = _SEALED.fullmatch(sealed.name)
        assert found
        lines = sealed.read_bytes().splitlines()
        rows = rows_of(lines, int(found[2]))
        try:
            if len(rows["pin_id"]):
                with EventLogWriter(self.uri, _VERSION, late_rows=True) as writer:
                    writer.impressions(rows)
        except DataContractError:
            # Somebody may have said meanwhile that the log is complete: it knows them from now on.
            sealed.rename(sealed.with_name(f"{found[1]}.{now_ms()}.sealed"))
            raise
        sealed.unlink()
        sync_folder(sealed.parent)


def now_ms() -> int:
    """Return this machine's time, ms since 1970."""
    return time.time_ns() // 1_000_000
