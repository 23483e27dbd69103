"""Training over several machines, which here are two launchers on one: same ranks, same result."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    RunInProgressError,
    TransientStorageError,
)
from pipelines.contracts.files import write_whole
from support.listeners import watched_listeners
from support.serving import free_port
from support.training_process import ended, signal_when, start_training
from training.environment import model_environment
from training.fitting.spec import NodeAddress, TrainingResult, TrainingSpec, WorkFolder
from training.launch import launcher
from training.launch.launcher import train


def start_both(
    spec: TrainingSpec, its_spec: TrainingSpec, folder: Path
) -> list["subprocess.Popen[str]"]:
    """Start the second machine's launcher and then the first's; they meet at a free port."""
    place = f"127.0.0.1:{free_port()}"
    return [
        start_training(each, folder, NodeAddress(rank=rank, rendezvous=place))
        for rank, each in ((1, its_spec), (0, spec))
    ]


def test_on_one_machine_nothing_listens_to_another(watched_two_ranks) -> None:
    listeners = watched_two_ranks[2]
    assert len(listeners.by_process) == 3, "torchrun and its two processes listen"
    assert listeners.open_to_others == set()


def test_two_machines_told_to_stop_save_and_then_train_what_two_devices_of_one_do(
    planted, watched_two_ranks, tmp_path, monkeypatch
) -> None:
    spec = planted.spec_with_dropout(tmp_path / "work", num_nodes=2)
    folder = WorkFolder(tmp_path / "work")
    # another machine's copy of the snapshot may lie elsewhere
    elsewhere = tmp_path / "copy"
    elsewhere.symlink_to(spec.snapshot_dir)
    its_spec = spec.model_copy(update={"snapshot_dir": str(elsewhere)})
    late, early = start_both(spec, its_spec, tmp_path)
    signal_when(lambda: any(folder.checkpoints.glob("step-*4-*.ckpt")), late, signal.SIGTERM)
    assert [ended(late), ended(early)] == ["", ""]
    assert late.returncode == 128 + signal.SIGTERM
    told = (tmp_path / "node-0.log").read_text().splitlines()[-1]
    assert "TransientStorageError" in told and "was told to stop and saved" in told
    assert not folder.result.exists()

    with watched_listeners() as listeners:
        printed = [ended(process) for process in start_both(spec, its_spec, tmp_path)]
    assert len(listeners.by_process) == 3, "the first torchrun and both processes listen"
    assert listeners.open_to_others == set()  # for they meet at a loopback address
    assert printed[0] == printed[1]
    result = TrainingResult.model_validate_json(printed[0])
    assert result.resumed_from_step > 0
    assert result.bundle_digest == watched_two_ranks[1].bundle_digest
    assert result.bundle_dir == str(folder.bundle)
    monkeypatch.setattr(sys, "executable", "/nonexistent")  # starting anything would fail
    for rank, each in enumerate((spec, its_spec)):
        assert train(each, NodeAddress(rank=rank, rendezvous="a:1")) == result


@pytest.mark.parametrize(
    ("num_nodes", "rank", "place"),
    [
        (2, 2, "a:1"),
        (2, -1, "a:1"),
        (2, 0, "a"),
        (2, 0, ":1"),
        (2, 0, "a:65536"),
        (2, 0, "a:0"),
        (1, 1, "a:1"),
    ],
)
def test_an_address_that_does_not_fit_is_refused(planted, tmp_path, num_nodes, rank, place) -> None:
    spec = planted.spec(tmp_path / "work", num_nodes=num_nodes)
    for node in (NodeAddress(rank=rank, rendezvous=place), *([None] * (num_nodes - 1))):
        with pytest.raises(ConfigurationError, match=rf"expected a rank in \[0, {num_nodes}\)"):
            train(spec, node)
    assert not (tmp_path / "work").exists()


def test_a_machine_whose_first_one_trains_something_else_says_so(
    planted, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(launcher, "_NODES_WAIT_S", 0.1)
    spec = planted.spec(tmp_path, num_nodes=2)
    node = NodeAddress(rank=1, rendezvous="127.0.0.1:29500")
    with pytest.raises(TransientStorageError, match="node 1 found no training in"):
        train(spec, node)
    other = planted.spec(tmp_path, num_nodes=2, training={"seed": 99})
    write_whole(WorkFolder(tmp_path).spec, other.to_record())
    with pytest.raises(TransientStorageError, match="node 1 found another training in"):
        train(spec, node)
    found = launcher._failure(spec, WorkFolder(tmp_path), 1, 0, [])
    assert type(found) is TransientStorageError and "node 0 published nothing in" in str(found)
    alone = launcher._failure(planted.spec(tmp_path), WorkFolder(tmp_path), 0, 0, ["its end"])
    assert type(alone) is HomefeedError and "with exit code 0" in str(alone)


def test_a_machine_that_nobody_meets_says_so(planted, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(launcher, "_NODES_WAIT_S", 3.0)
    node = NodeAddress(rank=0, rendezvous=f"127.0.0.1:{free_port()}")
    expected = "node 0 of 2 did not meet the others within 3 s"
    with pytest.raises(TransientStorageError, match=expected):
        train(planted.spec(tmp_path, num_nodes=2), node)


def test_a_process_does_not_train_what_its_launcher_did_not_ask_for(planted, tmp_path) -> None:
    spec = planted.spec(tmp_path)
    write_whole(WorkFolder(tmp_path).spec, spec.to_record())
    command = [sys.executable, "-m", "training.launch.worker", str(tmp_path / "spec.json")]
    command += ["other", spec.snapshot_dir]
    environment = model_environment(1) | {"RANK": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == RunInProgressError.exit_code
    assert "is of another training than this process was started for" in done.stderr


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("trainer-0", False)],
)
def test_only_one_machine_is_held_to_the_loopback_device(monkeypatch, host, is_loopback) -> None:
    """Whatever a person has set stays."""
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    assert NodeAddress(rank=0, rendezvous=f"{host}:29500").is_loopback == is_loopback
    for given, expected in ((None, "lo" if is_loopback else None), ("eth1", "eth1")):
        for name in names:
            monkeypatch.setenv(name, given) if given else monkeypatch.delenv(name, raising=False)
        environment = model_environment(1, is_one_machine=is_loopback)
        assert [environment.get(name) for name in names] == [expected, expected]
