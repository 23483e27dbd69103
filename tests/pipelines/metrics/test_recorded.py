"""What a stage used, as its manifest keeps it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.metrics.recorded import recorded
from pipelines.metrics.usage import Account
from support.runs import make_run

MIB = 2**20


def test_time_memory_and_bytes_of_a_stage_and_its_processes_are_recorded(tmp_path: Path) -> None:
    code = f"x = bytearray({200 * MIB}); x[::4096] = b'1' * len(x[::4096]); sum(range(3_000_000))"
    with recorded("build_snapshot", ()) as found:
        assert found.usage is None  # until it has ended
        (tmp_path / "file").write_bytes(b"x" * MIB)
        (tmp_path / "file").read_bytes()
        subprocess.run([sys.executable, "-c", code], check=True)
    used = found.usage
    assert used is not None and used.cpu_s > 0.02 and used.gpu_s == 0
    assert used.peak_memory_bytes >= 200 * MIB
    assert used.written_bytes is not None and MIB <= used.written_bytes < 20 * MIB
    assert used.read_bytes is not None and used.read_bytes >= MIB


def test_gpus_are_held_by_the_stages_that_train(tmp_path: Path) -> None:
    run = make_run(tmp_path, accelerator="gpu", num_devices=4)
    for stage, num_gpus in (("train_challenger", 4), ("compare_with_champion", 0)):
        with recorded(stage, (run,)) as found:
            sum(range(100_000))
        assert found.usage is not None
        assert (found.usage.gpu_s > 0) == (num_gpus > 0)


def test_where_it_cannot_be_read_the_stage_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Account:
        raise OSError("no accounts")

    monkeypatch.setattr(Account, "now", refuse)
    with recorded("build_snapshot", ()) as found:
        pass
    assert found.usage is None


def test_an_error_of_the_stage_stays_the_same_one() -> None:
    with pytest.raises(ValueError, match="mine"), recorded("build_snapshot", ()):
        raise ValueError("mine")


def test_a_kernel_that_does_not_count_bytes_is_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.metrics.usage._moved_bytes", dict)
    with recorded("build_snapshot", ()) as found:
        pass
    assert found.usage is not None
    assert found.usage.read_bytes is None and found.usage.written_bytes is None
