"""What was answered gets into the event log once, whatever dies, and the next cycle reads it."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.alerts.transports import read_outbox
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.contracts.time import to_ms
from pipelines.recipes import smoke
from pipelines.serving import served_log
from pipelines.serving.batching import Answer
from pipelines.serving.served_log import ServedLog, line_of
from pipelines.serving.server import Server
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from pipelines.sources.event_log_writer import EventLogWriter
from pipelines.storage import to_uri
from support.own_tables import VERSION, give_log, record_of, rows_of_log
from support.runs import PLANTED_AS_OF, make_run
from support.worlds import write_planted_world
from training.bundle.ranking_requests import Decoded, Ranked, Shown

UNLOGGED = "homefeed_serving_unlogged_answers_total"
NEEDED = ("action_types_RS", "action_pins_RSE", "action_ages_ms_RS", "users_RE",
          "candidate_pins_CE", "categorical_CG", "numeric_CN")  # fmt: skip
NOW_MS = 1_750_000_000_000


def answer(
    name: str = "r", user: Any = "u0", pins: Any = ("p1", "p2", "p0"), **more: Any
) -> Answer:
    """Return an answer that ranks the pins last to first."""
    shown = {"surface": "homefeed", "is_exploration": False, "propensity": None} | more
    num = len(pins)
    ranked = Ranked({}, np.arange(num) / 8, np.arange(num)[::-1])
    arrays = dict.fromkeys(NEEDED, np.zeros((num, 2), np.float32))
    request = Decoded(name, None, list(pins), arrays, Shown(user, **shown))
    served: Any = SimpleNamespace(model=SimpleNamespace(version="7"))
    return Answer(request, ranked, served, 0.0, 0.0, 1)


class Lab:
    """A log, and the spools of servers that write it."""

    def __init__(self, folder: Path) -> None:
        self.log, self.spools = folder / "log", folder / "served"
        self.threads: list[tuple[ServedLog, threading.Thread]] = []

    def begin(self, name: str = "a-1") -> ServedLog:
        found = ServedLog(to_uri(self.log), self.spools, name)
        thread = threading.Thread(target=found.run_writer)
        thread.start()
        self.threads.append((found, thread))
        return found

    def end(self) -> None:
        for each, thread in self.threads:
            each.stop()
            thread.join(10)

    def rows(self) -> list[dict[str, Any]]:
        return [row for row in rows_of_log(self.log, "impressions") if row.get("model_version")]

    def left(self) -> list[str]:
        return sorted(p.name for p in self.spools.glob("*/*") if p.name != "lock")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    found = Lab(tmp_path)
    give_log(found.log)
    yield found
    found.end()


def test_an_answer_becomes_impressions_in_the_order_of_its_ranks(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_log, "now_ms", lambda: NOW_MS + 5)
    served = lab.begin()
    more = {"surface": "closeup", "is_exploration": True, "propensity": [0.5, None, 0.25]}
    served.write(line_of(answer(**more), NOW_MS)).result(10)
    served.write(line_of(answer("s"), NOW_MS + 9)).result(10)  # The clock was set back since.
    served.add()
    assert served.trouble == "" and lab.left() == []
    first, second, third, *others = lab.rows()
    names = {row["name"]: row["id"] for row in pq.read_table(lab.log / "names/pins").to_pylist()}
    common = {"request_id": "r", "impressed_at": NOW_MS, "known_at": NOW_MS + 5}
    common |= {"surface": "closeup", "is_exploration": True, "model_version": "7"}
    assert first.items() >= (common | {"pin_id": names["p0"], "position": 0}).items()
    assert [row["served_score"] for row in (first, second, third)] == [0.25, 0.125, 0.0]
    assert [row["propensity"] for row in (first, second, third)] == [0.25, None, 0.5]
    assert [row["known_at"] for row in others] == [NOW_MS + 9] * 3
    assert [row["propensity"] for row in others] == [None] * 3


def test_what_was_answered_before_a_kill_is_in_the_log_once(lab: Lab) -> None:
    code = (
        "import sys, itertools, pipelines, validation, training; sys.path.append('tests')\n"
        "from pathlib import Path; from pipelines.serving.served_log import line_of\n"
        "import importlib.util as u; s = u.spec_from_file_location('t', sys.argv[2])\n"
        "t = u.module_from_spec(s); s.loader.exec_module(t)\n"
        "served = t.Lab(Path(sys.argv[1])).begin()\n"
        "for n in itertools.count():\n"
        "    served.write(line_of(t.answer(f'k{n}'), t.NOW_MS)).result()\n"
        "    print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(lab.log.parent), __file__]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout]
    process.wait()
    [left] = lab.left()
    with (lab.spools / "a-1" / left).open("ab") as file:
        file.write(line_of(answer("cut"), NOW_MS)[:-20])  # Nobody was answered.
    lab.begin("b-2").add()
    found = [row["request_id"] for row in lab.rows()]
    assert len(found) == 3 * len(set(found)) and {f"k{n}" for n in told} <= set(found)
    assert "cut" not in found and lab.left() == []


def test_a_kill_between_the_block_and_the_file_s_removal_doubles_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = lab.begin()
    served.write(line_of(answer(), NOW_MS)).result(10)
    unlink = Path.unlink

    def killed(path: Path, **options: Any) -> None:
        if path.suffix == ".sealed":
            raise OSError("killed")
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        served.add()
    assert "killed" in served.trouble and len(lab.rows()) == 3 and len(lab.left()) == 1
    before = record_of(lab.log)
    served.add()
    assert record_of(lab.log) == before and lab.left() == [] and served.trouble == ""


def test_each_server_has_its_own_spool_and_leaves_that_of_one_that_lives(lab: Lab) -> None:
    one, other = lab.begin("a-1"), lab.begin("a-2")
    with pytest.raises(RunInProgressError, match="serving as a-1 is already running"):
        lab.begin("a-1")
    one.write(line_of(answer("one"), NOW_MS)).result(10)
    other.write(line_of(answer("other"), NOW_MS)).result(10)
    other.add()
    assert {row["request_id"] for row in lab.rows()} == {"other"} and other.trouble == ""
    one.add()
    assert {row["request_id"] for row in lab.rows()} == {"one", "other"}


def test_a_full_disk_costs_the_lines_of_that_moment_alone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, write = lab.begin(), os.write
    served.write(line_of(answer("before"), NOW_MS)).result(10)

    def half(descriptor: int, content: bytes) -> int:
        write(descriptor, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(served_log.os, "write", half)
        with pytest.raises(OSError, match="No space left"):
            served.write(line_of(answer("lost"), NOW_MS)).result(10)
    served.write(line_of(answer("after"), NOW_MS)).result(10)
    served.add()
    assert [row["request_id"] for row in lab.rows()] == ["before"] * 3 + ["after"] * 3


def test_answers_that_no_disk_takes_are_sent_counted_and_told_once(
    lab: Lab, tmp_path: Path, unused_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=str(tmp_path), tracking_uri=unused_url)
    served = lab.begin()
    server = Server(settings, tmp_path / "cache", 5.0, served, "here:1")
    with monkeypatch.context() as patched:
        full = OSError(errno.ENOSPC, "No space left on device")
        patched.setattr(served_log.os, "fdatasync", mock.Mock(side_effect=full))
        for number in range(2):
            asyncio.run(server._log(served, [answer(f"{number}a"), answer(f"{number}b")]))
            server._looked()
    asyncio.run(server._log(served, [answer("kept")]))
    [(_, alert)] = read_outbox(settings)
    assert alert.title.endswith("serving: answers are not logged")
    assert "No space left on device" in alert.happened and "here:1" in alert.happened
    assert server.measured.registry.get_sample_value(UNLOGGED) == 4
    served.add()
    assert [row["request_id"] for row in lab.rows()] == ["kept"] * 3


def test_what_the_log_refuses_stays_and_is_known_later(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = lab.begin()
    monkeypatch.setattr(served_log, "now_ms", lambda: NOW_MS)
    served.write(line_of(answer(), NOW_MS)).result(10)
    with EventLogWriter(lab.log, VERSION, late_rows=True) as writer:
        served.add()
        assert "is not in" in served.trouble or "already running" in served.trouble
        writer.pins({"pin_id": ["p9"], "embedding": np.ones((1, 6), np.float32)})
    assert len(lab.left()) == 1
    complete_to = datetime.fromtimestamp((NOW_MS + 1000) / 1000, UTC)
    with EventLogWriter(lab.log, VERSION, complete_to=complete_to) as writer:
        writer.pins({"pin_id": ["p8"], "embedding": np.ones((1, 6), np.float32)})
    monkeypatch.setattr(served_log, "now_ms", lambda: NOW_MS + 2000)
    served.add()
    assert "expected none before" in served.trouble and len(lab.left()) == 1
    served.add()
    assert [row["known_at"] for row in lab.rows()] == [NOW_MS + 2000] * 3 and not served.trouble


NAMES = [
    'a"b\\c',
    "line\nbreak\r\n",
    "nul\0in it",
    "\u2028\u2029\x85\x1c",
    "'; DROP TABLE x",
    "é" * 200,
]


def test_names_that_try_to_inject_are_names(lab: Lab) -> None:
    served = lab.begin()
    for n, name in enumerate(NAMES):
        pins = [name, *(f"{name[:190]}{k}" for k in range(2))]
        served.write(line_of(answer(f"{name[:190]}{n}", name, pins, surface=name), NOW_MS)).result(
            10
        )
    served.add()
    assert served.trouble == "" and lab.left() == []
    rows = lab.rows()
    assert {row["surface"] for row in rows} == {*NAMES} and len(rows) == 3 * len(NAMES)
    assert {row["request_id"] for row in rows} == {f"{x[:190]}{n}" for n, x in enumerate(NAMES)}
    users = pq.read_table(lab.log / "names/users")["name"].to_pylist()
    assert {*NAMES} <= {*users}


def test_a_log_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no event log is at .*; expected one that Event"):
        ServedLog(to_uri(tmp_path / "none"), tmp_path / "served", "a-1")


def test_the_next_cycle_reads_what_was_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted_world(tmp_path / "planted", num_users=60, num_days=67)
    lab, tables = Lab(tmp_path), {}
    lab.log = tmp_path / "event_log"
    for table in ("pins", "users", "impressions", "actions"):
        files = sorted((tmp_path / "planted" / table).rglob("*.parquet"))
        tables[table] = pq.read_table(files, partitioning=None)
    [version] = set(tables["pins"]["embedding_version"].to_pylist())
    with EventLogWriter(lab.log, version) as writer:
        for table, rows in tables.items():
            getattr(writer, table)(rows)
    run = make_run(tmp_path, smoke(), PLANTED_AS_OF)
    before = write_snapshot(run)
    at_ms = to_ms(PLANTED_AS_OF) - 3 * 86_400_000
    monkeypatch.setattr(served_log, "now_ms", lambda: at_ms + 60_000)
    user, pins = tables["users"]["user_id"][0].as_py(), tables["pins"]["pin_id"].to_pylist()[:3]
    served = lab.begin()
    assert served.kinds == {"user_id": "integer", "pin_id": "integer"}
    for n in range(5):
        served.write(line_of(answer(f"served-{n}", user, pins), at_ms + n)).result(10)
    served.add()
    lab.end()
    again = make_run(tmp_path, smoke(), PLANTED_AS_OF, run_id="again")
    after = write_snapshot(again)
    assert served.trouble == ""
    assert after.num_requests == before.num_requests + 5
    assert after.num_examples == before.num_examples + 15
