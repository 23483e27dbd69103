"""Training over several machines, which here are two launchers on one: same ranks, same result."""

import json
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from pipelines.contracts.errors import (
    ConfigurationError,
    RunInProgressError,
    TransientStorageError,
)
from pipelines.contracts.files import write_json
from support.listeners import watched_listeners
from support.training_process import ended, signal_when, start_training
from training.environment import model_environment
from training.fitting.fit import SameStart
from training.fitting.spec import NodeAddress, TrainingResult
from training.fitting.work_folder import WorkFolder
from training.launch import launcher
from training.launch.launcher import train

IDENTITY = "fedcba9876543210" * 4


def addresses() -> tuple[NodeAddress, NodeAddress]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = f"127.0.0.1:{free.getsockname()[1]}"
    return NodeAddress(rank=0, rendezvous=rendezvous), NodeAddress(rank=1, rendezvous=rendezvous)


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
    first, second = addresses()
    processes = [start_training(its_spec, tmp_path, second), start_training(spec, tmp_path, first)]
    late = processes[0]
    signal_when(lambda: any(folder.checkpoints.glob("step-*4-*.ckpt")), late, signal.SIGTERM)
    assert [ended(process) for process in processes] == ["", ""]
    assert late.returncode == 128 + signal.SIGTERM
    told = (tmp_path / "node-0.log").read_text().splitlines()[-1]
    assert "TransientStorageError" in told and "was told to stop and saved" in told
    assert not folder.result.exists()

    first, second = addresses()
    with watched_listeners() as listeners:
        processes = [
            start_training(its_spec, tmp_path, second),
            start_training(spec, tmp_path, first),
        ]
        results = [TrainingResult.model_validate_json(ended(process)) for process in processes]
    assert len(listeners.by_process) == 3, "the first torchrun and both processes listen"
    assert listeners.open_to_others == set()  # for they meet at a loopback address
    assert results[0] == results[1]
    assert results[0].resumed_from_step > 0
    assert results[0].bundle_digest == watched_two_ranks[1].bundle_digest
    assert results[0].bundle_dir == str(tmp_path / "work" / "bundle")
    assert json.loads(folder.spec_of(1).read_text())["snapshot_dir"] == str(elsewhere)
    monkeypatch.setattr(sys, "executable", "/nonexistent")  # starting anything would fail
    assert train(its_spec, second) == train(spec, first) == results[0]


def test_machines_that_see_different_checkpoints_do_not_train() -> None:
    def start_at(steps: list[int], is_other: bool = False) -> None:
        other = int(IDENTITY[:15], 16) + 1 if is_other else int(IDENTITY[:15], 16)

        def all_gather(own: torch.Tensor) -> torch.Tensor:
            return torch.stack([own, torch.tensor([other, steps[1]])])

        trainer = SimpleNamespace(
            global_step=steps[0], strategy=SimpleNamespace(all_gather=all_gather)
        )
        SameStart(IDENTITY).on_train_start(trainer, SimpleNamespace(device="cpu"))

    start_at([3, 3])
    with pytest.raises(TransientStorageError, match=r"1 different .* steps \[3, 0\], by rank"):
        start_at([3, 0])
    with pytest.raises(TransientStorageError, match=r"found 2 different trainings"):
        start_at([3, 3], is_other=True)


def test_the_number_of_machines_is_part_of_a_training(planted, tmp_path) -> None:
    identities = {planted.spec(tmp_path, num_nodes=n).identity() for n in (1, 2, 3)}
    assert len(identities) == 3


@pytest.mark.parametrize(
    ("num_nodes", "node"),
    [
        (2, None),
        (2, NodeAddress(rank=2, rendezvous="10.0.0.1:29500")),
        (2, NodeAddress(rank=-1, rendezvous="10.0.0.1:29500")),
        (2, NodeAddress(rank=0, rendezvous="10.0.0.1")),
        (2, NodeAddress(rank=0, rendezvous=":29500")),
        (2, NodeAddress(rank=0, rendezvous="10.0.0.1:65536")),
        (1, NodeAddress(rank=1, rendezvous="10.0.0.1:29500")),
    ],
)
def test_an_address_that_does_not_fit_is_refused(planted, tmp_path, num_nodes, node) -> None:
    expected = rf"num_nodes={num_nodes} with .*expected a node rank in \[0, {num_nodes}\)"
    with pytest.raises(ConfigurationError, match=expected):
        train(planted.spec(tmp_path / "work", num_nodes=num_nodes), node)
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
    write_json(WorkFolder(tmp_path).spec, other)
    with pytest.raises(TransientStorageError, match="node 1 found another training in"):
        train(spec, node)


def test_a_machine_that_nobody_meets_says_so(planted, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(launcher, "_NODES_WAIT_S", 3.0)
    expected = r"node 0 waited 3 s and did not meet the other nodes; expected 2 of them"
    with pytest.raises(TransientStorageError, match=expected):
        train(planted.spec(tmp_path, num_nodes=2), addresses()[0])


def test_a_process_does_not_train_what_its_launcher_did_not_ask_for(planted, tmp_path) -> None:
    spec = planted.spec(tmp_path)
    write_json(WorkFolder(tmp_path).spec, spec)
    command = [
        sys.executable,
        "-m",
        "training.launch.worker",
        str(WorkFolder(tmp_path).spec),
        IDENTITY,
    ]
    environment = model_environment(1) | {"RANK": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == RunInProgressError.exit_code
    assert "is of another training than this process was started for" in done.stderr


@pytest.mark.parametrize(
    ("rendezvous", "is_loopback"),
    [
        ("127.0.0.1:29500", True),
        ("localhost:29500", True),
        ("[::1]:29500", True),
        ("10.0.0.1:29500", False),
        ("trainer-0.trainers:29500", False),
    ],
)
def test_only_one_machine_is_held_to_the_loopback_device(
    monkeypatch, rendezvous, is_loopback
) -> None:
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    node = NodeAddress(rank=0, rendezvous=rendezvous)
    assert node.is_loopback == is_loopback
    environment = model_environment(1, is_one_machine=is_loopback)
    expected = "lo" if is_loopback else None
    assert [environment.get(name) for name in names] == [expected, expected]
    for name in names:
        monkeypatch.setenv(name, "eth1")
    for is_one_machine in (True, False):
        environment = model_environment(1, is_one_machine=is_one_machine)
        assert [environment[name] for name in names] == ["eth1", "eth1"]
