"""Which checkpoint a training goes on from, where some are damaged."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import pytorch_lightning as pl
import torch

from pipelines.contracts.errors import TransientStorageError
from support.damage import flip_a_byte
from training.fitting.checkpoints import CheckpointWriter, newest_intact, require_same_start
from training.fitting.fit import _fit
from training.fitting.spec import WorkFolder


def write_checkpoint(folder: Path, step: int) -> Path:
    content = bytes(range(256)) * step
    path = folder / f"step-{step:09d}-{hashlib.sha256(content).hexdigest()}.ckpt"
    path.write_bytes(content)
    return path


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped byte": flip_a_byte,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "without its digest": lambda path: path.rename(path.with_name("step-000000009.ckpt")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage: str, tmp_path) -> None:
    (tmp_path / ".writing").write_bytes(b"half")
    assert newest_intact(tmp_path) is None
    older, newest = write_checkpoint(tmp_path, 4), write_checkpoint(tmp_path, 8)
    for path, before in ((newest, older), (older, None)):
        found = newest_intact(tmp_path)
        assert found is not None and found.path == path and found.step == int(path.name[5:14])
        DAMAGES[damage](path)
        found = newest_intact(tmp_path)
        assert (found and found.path) == before
    assert newest_intact(tmp_path / "not there") is None


def test_machines_that_see_different_checkpoints_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = WorkFolder(tmp_path), MagicMock()
    folder.metrics.write_text("of an earlier attempt")
    monkeypatch.setattr(pl, "Trainer", made)
    made.return_value.global_step = 9
    spec = MagicMock(tracking_uri="", mlflow_run_id="", num_devices=1, num_nodes=1)
    _fit(spec, folder, MagicMock(), MagicMock(num_steps=9), None)
    strategy = SimpleNamespace(all_gather=lambda own: torch.tensor([[own.item()], [3]]))
    module, same, other = (SimpleNamespace(device="cpu"), *(
        SimpleNamespace(global_step=step, strategy=strategy, is_global_zero=True) for step in (3, 0)
    ))  # fmt: skip
    require_same_start(same, module)
    with pytest.raises(TransientStorageError, match=r"checkpoints of steps \[0, 3\], by rank"):
        for each in made.call_args.kwargs["callbacks"]:
            each.on_train_start(other, module)
    assert folder.metrics.read_text() == "of an earlier attempt"


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path: Path) -> None:
    def die(path: Path, weights_only: bool) -> None:
        tempfile.mkstemp()  # As the trainer does, before it gives the file its name.
        raise KeyboardInterrupt

    def save(path: Path, weights_only: bool) -> None:
        path.write_bytes(b"a checkpoint")

    def trainer(save_checkpoint: Callable[[Path, bool], None]) -> Any:
        return SimpleNamespace(is_global_zero=True, global_step=4, save_checkpoint=save_checkpoint)

    writer = CheckpointWriter(tmp_path, every_steps=1)
    with pytest.raises(KeyboardInterrupt):
        writer._save(trainer(die))
    [left] = [path.name for path in tmp_path.iterdir()]
    assert left.startswith("tmp")
    writer._save(trainer(save))
    digest = hashlib.sha256(b"a checkpoint").hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == [f"step-000000004-{digest}.ckpt"]
