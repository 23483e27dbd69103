"""The lease, on a disk and on a real S3 server: who holds it, who loses it, what a loser can do."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.errors import (
    DataContractError,
    RunInProgressError,
    TransientStorageError,
)
from pipelines.contracts.files import holder_of
from pipelines.places import lease as store_lease
from pipelines.places import stores
from pipelines.places.lease import Lease
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.holders import TTL_S, hold, state_of
from support.line import Line, line_to

USUAL_TTL_S = store_lease.TTL_S


@pytest.fixture(autouse=True)
def short_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lease, "TTL_S", TTL_S)


@pytest.fixture
def no_renewals(monkeypatch: pytest.MonkeyPatch, short_ttl: None) -> None:
    """Make leases of which no sign of life is due while a test runs."""
    monkeypatch.setattr(store_lease, "TTL_S", USUAL_TTL_S)


@pytest.fixture
def line(s3_url: str) -> Iterator[Line]:
    with line_to(s3_url) as line:
        yield line


def test_the_number_grows_with_every_holder_and_stays_while_it_renews(s3_uri: str) -> None:
    numbers = []
    for _ in range(3):
        with storage.exclusive_lock(s3_uri, "the run") as lease:
            lease.renew()
            numbers.append(lease.number)
            held = state_of(s3_uri)
            assert (held.number, held.purpose) == (lease.number, "the run")
            assert held.holder.startswith(f"process {os.getpid()} on ") and held.beat > 0
    assert numbers == [1, 2, 3]
    assert (state_of(s3_uri).number, state_of(s3_uri).holder) == (3, "")


def test_a_second_holder_is_refused_and_told_who_has_it(s3_uri: str) -> None:
    with hold(s3_uri) as holder:
        assert holder.says() == "1"
        with pytest.raises(
            RunInProgressError,
            match=rf"^another is already running: process {holder.pid} on \S+ \(lease 1, for the "
            rf"run\) holds {s3_uri}.lease; expected nobody",
        ):
            with storage.exclusive_lock(s3_uri, "another"):
                pytest.fail("two hold one place")
        holder.tell()
        assert holder.says() == "written"
    assert state_of(s3_uri).holder == "", "given back by its holder, untouched by the other"


def test_a_place_is_waited_for_as_long_as_was_said(s3_uri: str) -> None:
    with hold(s3_uri) as holder:
        assert holder.says() == "1"
        started = time.monotonic()
        with pytest.raises(RunInProgressError):
            with storage.exclusive_lock(s3_uri, "another", wait_s=2 * TTL_S):
                pytest.fail("two hold one place")
        assert time.monotonic() - started >= 2 * TTL_S, "longer than a dead holder is waited for"
        holder.tell()
        with storage.exclusive_lock(s3_uri, "another", wait_s=60) as lease:
            assert lease.number == 2


def test_a_killed_holder_loses_its_place_after_its_time_to_live(s3_uri: str) -> None:
    with hold(s3_uri) as holder:
        assert holder.says() == "1"
        holder.kill()
        started = time.monotonic()
        with storage.exclusive_lock(s3_uri, "another") as lease:
            assert lease.number == 2
            assert time.monotonic() - started >= TTL_S


def test_a_holder_is_known_by_its_last_sign_of_life(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not storage.is_held(s3_uri)
    with hold(s3_uri) as holder:
        assert holder.says() == "1" and storage.is_held(s3_uri)
        holder.kill()
        with monkeypatch.context() as later:
            later.setattr(store_lease, "_CLAIMED_FOR", timedelta(0))
            assert not storage.is_held(s3_uri), "its last sign of life is too old"
    with storage.exclusive_lock(s3_uri, "another"):
        assert storage.is_held(s3_uri)
    assert not storage.is_held(s3_uri), "it was given back"


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_holder_that_was_stopped_or_cut_off_finds_its_place_taken_and_writes_nothing(
    s3_uri: str, line: Line, is_stopped: bool
) -> None:
    with hold(s3_uri, AWS_ENDPOINT_URL=line.url) as holder:
        assert holder.says() == "1"
        holder.stop() if is_stopped else line.cut()
        with storage.exclusive_lock(s3_uri, "another") as lease:
            holder.wake() if is_stopped else line.mend()
            holder.tell()
            says = holder.says()
            assert says.startswith(f"RunInProgressError the run: lease 1 of {s3_uri} is lost")
            lease.require_held()
            assert state_of(s3_uri).number == 2
    assert not storage.exists(f"{s3_uri}/by-holder")


def test_a_holder_that_is_cut_off_for_good_writes_nothing_after_its_time(
    s3_uri: str, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
    with storage.exclusive_lock(s3_uri, "the run") as lease:
        line.cut()
        time.sleep(TTL_S)
        with pytest.raises(TransientStorageError, match=r"\.lease: .*check the storage"):
            lease.require_held()
        with pytest.raises(TransientStorageError):
            deletion.remove(f"{s3_uri}/something")
        line.mend()
        lease.require_held()  # Nobody has taken the place meanwhile: that is proved, not assumed.
    assert state_of(s3_uri).number == 1


@pytest.mark.usefixtures("no_renewals")
def test_in_the_last_part_of_its_time_a_holder_asks_the_store_before_it_writes(
    s3_uri: str, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written then might arrive when the place is another process's already."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
    now, nothing = store_lease._now_s, storage.to_uri("/nowhere/at/all")
    with storage.exclusive_lock(s3_uri, "the run") as lease:
        assert isinstance(lease, store_lease.StoreLease)

        def let_only(left_s: float) -> None:
            ahead_s = lease._ends_at - left_s - now()
            monkeypatch.setattr(store_lease, "_now_s", lambda: now() + ahead_s)

        let_only(37.0)
        line.cut()
        deletion.remove(nothing)
        line.mend()
        let_only(35.0)
        deletion.remove(nothing)
        assert (lease._state.beat, state_of(s3_uri).beat) == (1, 1)
        let_only(stores.LONGEST_REQUEST_S)
        line.cut()
        with pytest.raises(TransientStorageError):
            deletion.remove(nothing)
        line.mend()


def test_what_is_begun_without_asking_ends_before_anybody_can_take_the_place() -> None:
    margin_s = store_lease.MARGIN * USUAL_TTL_S
    assert stores.LONGEST_REQUEST_S < margin_s
    assert stores._PATIENCE.total_seconds() < margin_s
    usual_s = USUAL_TTL_S * (1 - 1 / store_lease.RENEWALS_PER_TTL)
    assert margin_s + stores._TIMEOUT.total_seconds() / 2 < usual_s, "who is answered need not ask"


@pytest.mark.parametrize("fault", ["answer lost", "500", "request lost", "reset"])
def test_a_lost_answer_loses_no_lease(
    s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with faulty_proxy(s3_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with storage.exclusive_lock(s3_uri, "the run") as lease:
            for times in (1, 2):
                proxy.lose(".lease", fault, times)
                for _ in range(times + 1):
                    try:
                        lease.renew()
                    except TransientStorageError:
                        continue
            assert [each[0] for each in proxy.met] == [fault] * 3, "all were met"
            proxy.mend()
            lease.renew()
            assert not lease.is_lost
        assert state_of(s3_uri).holder == ""


def renew_unknown_to_its_holder(lease: Lease, proxy: FaultyProxy) -> None:
    """Write a sign of life whose answer is lost, and which cannot be read either until later."""
    proxy.choose = lambda method, path: "answer lost" if method == "PUT" else "500"
    with pytest.raises(TransientStorageError):
        lease.renew()
    proxy.mend()


@pytest.mark.usefixtures("no_renewals")
def test_a_sign_of_life_that_arrived_unknown_to_its_holder_loses_no_lease(
    s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(s3_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with storage.exclusive_lock(s3_uri, "the run") as lease:
            renew_unknown_to_its_holder(lease, proxy)
            lease.renew()
            assert not lease.is_lost
            assert state_of(s3_uri).beat > 1, "the lost one counts"
            renew_unknown_to_its_holder(lease, proxy)
        assert (state_of(s3_uri).number, state_of(s3_uri).holder) == (1, "")


@pytest.mark.usefixtures("no_renewals")
def test_a_place_that_was_lost_unnoticed_is_left_to_its_new_holder(
    s3_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    with storage.exclusive_lock(s3_uri, "the run"):
        theirs = state_of(s3_uri).model_copy(update={"number": 2, "holder": "them", "token": "t"})
        filesystem, path = storage.open_filesystem(f"{s3_uri}.lease")
        with filesystem.open_output_stream(path) as stream:
            stream.write(theirs.to_record())
    assert state_of(s3_uri) == theirs
    assert f"{s3_uri} could not be given back: {s3_uri}.lease is another process's" in caplog.text


def test_a_lease_file_that_was_deleted_is_a_lost_lease(s3_uri: str) -> None:
    with storage.exclusive_lock(s3_uri, "the run") as lease:
        filesystem, path = storage.open_filesystem(f"{s3_uri}.lease")
        filesystem.delete_file(path)
        with pytest.raises(RunInProgressError, match="another process's by now"):
            lease.renew()
        assert lease.is_lost
        with pytest.raises(RunInProgressError, match="lost before"):
            storage.write_bytes(f"{s3_uri}/x", b"x")


def test_a_lease_that_was_given_back_is_not_renewed(s3_uri: str) -> None:
    with storage.exclusive_lock(s3_uri, "the run") as lease:
        pass
    for ask in (lease.renew, lease.require_held):
        with pytest.raises(RunInProgressError, match="given back"):
            ask()
    lease.release()
    storage.write_bytes(f"{s3_uri}/x", b"x")


def test_a_file_that_is_no_lease_is_named(s3_uri: str) -> None:
    storage.write_bytes(f"{s3_uri}.lease", b"{}")
    with pytest.raises(DataContractError, match=rf"{s3_uri}.lease is not a valid LeaseState"):
        with storage.exclusive_lock(s3_uri, "the run"):
            pytest.fail("taken")


def test_the_number_grows_with_every_holder_also_after_a_kill(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "run")
    code = (
        "import os; from pipelines import storage\n"
        f"with storage.exclusive_lock({uri!r}, 'x') as lease:\n"
        "    print(lease.number, flush=True); os.kill(os.getpid(), 9)\n"
    )
    with storage.exclusive_lock(uri, "the run") as first:
        first.renew()
        first.require_held()
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    with storage.exclusive_lock(uri, "the run") as third:
        assert holder_of(tmp_path / "run.lock") == str(os.getpid())
    assert (first.number, killed.stdout, third.number) == (1, b"2\n", 3)


def test_who_only_looks_keeps_nobody_from_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look ends while the other one pauses, who was told to wait for nobody."""
    uri = storage.to_uri(tmp_path / "run")
    with storage.exclusive_lock(uri, "the run"):
        pass
    with (tmp_path / "run.lock").open() as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: looked_at.close())
        with storage.exclusive_lock(uri, "the run") as lease:
            assert looked_at.closed and lease.number == 2


@pytest.mark.parametrize(
    ("left", "number"),
    [
        *((left, 1) for left in ("", "12", "12\n", "12\nseven\n", "\x00\x00")),
        ("7\n100\n9\n", 101),  # a kill between writing and cutting off leaves an older end
    ],
)
def test_a_number_is_counted_from_what_a_lock_file_says(
    tmp_path: Path, left: str, number: int
) -> None:
    (tmp_path / "run.lock").write_text(left)
    with storage.exclusive_lock(storage.to_uri(tmp_path / "run"), "the run") as lease:
        assert lease.number == number
    assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n{number}\n"


def test_a_number_that_cannot_be_written_gives_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    uri = storage.to_uri(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(TransientStorageError, match="the disk is full"):
            with storage.exclusive_lock(uri, "the run"):
                pytest.fail("the lock was given")
    with storage.exclusive_lock(uri, "the run") as lease:
        assert lease.number == 1
