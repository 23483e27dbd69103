"""Threads that wait for each other sleep early while others want the cores, and spin otherwise."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch  # noqa: F401 - it loads the library whose threads wait

from training import thread_waits
from training.thread_waits import FREE_BELOW, LOOKS_UNTIL_FREE, SHARED_FROM, Choice, waits_by_load

SPINNING = """
import ctypes, json, sys, time
import torch
from training.thread_waits import _loaded_libgomp, threads_sleep_early

library = _loaded_libgomp()

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def rest_in_the_first_thread(_):
    if library.omp_get_thread_num() == 0:
        time.sleep(0.02)

def spun_s():
    team = range(library.omp_get_num_procs())
    library.GOMP_parallel(rest_in_the_first_thread, None, len(team), 0)
    started = time.process_time()
    for _ in range(20):
        library.GOMP_parallel(rest_in_the_first_thread, None, len(team), 0)
    return time.process_time() - started

found = [spun_s()]
with threads_sleep_early(library):
    found.append(spun_s())
found.append(spun_s())
sys.stdout.write(json.dumps(found))
"""


def test_one_more_team_makes_waiting_threads_sleep_and_its_end_makes_them_spin() -> None:
    """CPU time is counted, so what else runs on this machine does not matter."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: nobody waits")
    hidden = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", SPINNING],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    spinning, sleeping, again = json.loads(done.stdout)
    assert sleeping < 0.5 * min(spinning, again), done.stdout


def test_a_look_that_finds_load_is_enough_and_several_free_ones_end_it() -> None:
    choice = Choice()
    assert not choice.after(FREE_BELOW)
    assert not choice.after(SHARED_FROM)
    assert choice.after(SHARED_FROM + 0.01)
    for _ in range(2):  # a pause of the others is not their end
        assert [choice.after(0.0) for _ in range(LOOKS_UNTIL_FREE - 1)] == [True, True]
        assert choice.after((FREE_BELOW + SHARED_FROM) / 2)
    assert [choice.after(0.0) for _ in range(LOOKS_UNTIL_FREE)] == [True, True, False]


def test_the_load_is_seen_and_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Seconds are counted in such steps that they are many however late a thread is woken.

    Threads that ran for so long are never gathered on one core, which would be another message.
    """
    waited = {"1": 0.0}
    monkeypatch.setattr(
        thread_waits,
        "_counted_s",
        lambda: {
            task: thread_waits.Look(1000.0 * seconds, seconds) for task, seconds in waited.items()
        },
    )
    monkeypatch.setattr(thread_waits, "LOOK_EVERY_S", 0.01)
    caplog.set_level(logging.INFO)
    clear_choice(monkeypatch)
    with waits_by_load(2):
        for said in ("others want the cores", "the cores are free", "others want the cores"):
            deadline = time.monotonic() + 30
            while said not in "".join(caplog.messages[-1:]) and time.monotonic() < deadline:
                waited["1"] += 100.0 if said.startswith("others") else 0.0
                time.sleep(0.002)
            assert said in caplog.messages[-1]


def clear_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)


def test_where_the_load_cannot_be_seen_they_sleep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A kernel that does not count leaves zeros, and some sandboxes have no such file."""
    clear_choice(monkeypatch)
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(thread_waits, "LOOK_EVERY_S", 0.01)
    (tmp_path / "zeros" / "17").mkdir(parents=True)
    (tmp_path / "zeros" / "17" / "schedstat").write_text("0 0 0\n")
    for tasks in (tmp_path / "zeros", tmp_path / "not-there"):
        monkeypatch.setattr(thread_waits, "_TASKS", tasks)
        caplog.clear()
        with waits_by_load(2):
            time.sleep(0.3)
        assert len(caplog.messages) == 1 and "cannot be seen" in caplog.messages[0]


@pytest.mark.parametrize(
    "chosen", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "one thread", "no libgomp"]
)
def test_a_person_s_choice_stands_and_one_thread_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    clear_choice(monkeypatch)
    watched: list[object] = []
    monkeypatch.setattr(thread_waits, "_watch", lambda library, _: watched.append(library))
    with waits_by_load(2):
        pass
    assert len(watched) == 1
    watched.clear()
    if chosen == "no libgomp":
        monkeypatch.setattr(thread_waits, "_loaded_libgomp", lambda: None)
    elif chosen != "one thread":
        monkeypatch.setenv(chosen, "7")
    with waits_by_load(1 if chosen == "one thread" else 2):
        pass
    assert watched == []


def test_the_kernel_counts_for_this_process() -> None:
    found = thread_waits._counted_s()
    if not (Path("/proc/self/schedstat")).exists():
        pytest.skip("this kernel does not count")
    assert str(os.getpid()) in found


def test_threads_share_one_core_beside_others_and_have_all_of_them_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one core: there is nothing to choose")
    started = time.monotonic()

    def counted() -> dict[str, thread_waits.Look]:
        passed = time.monotonic() - started
        return {"1": thread_waits.Look(0.9 * passed, 0.9 * passed)}

    monkeypatch.setattr(thread_waits, "_counted_s", counted)
    monkeypatch.setattr(thread_waits, "LOOK_EVERY_S", 0.01)
    clear_choice(monkeypatch)
    with waits_by_load(2):
        deadline = time.monotonic() + 30
        while len(os.sched_getaffinity(0)) > 1:
            assert time.monotonic() < deadline, "the threads were never gathered"
            time.sleep(0.002)
    assert os.sched_getaffinity(0) == allowed
