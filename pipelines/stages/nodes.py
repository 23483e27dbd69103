"""A training stage on several machines: which machine this is, and what the further ones do.

Machine 0 runs the stage as one machine would: it registers the model and publishes. The others only
compute. They take what is trained from the specification that machine 0 leaves in the training's
work folder, which all of them see, so that they cannot disagree on it.
Tested in tests/pipelines/stages/test_nodes.py and tests/production/kubernetes/test_two_nodes.py.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.contracts.snapshot_files import verify_files
from pipelines.contracts.stage_table import SIDES

if TYPE_CHECKING:
    from training.fitting.spec import NodeAddress

log = logging.getLogger(__name__)
_PREPARE_WAIT_S = 6 * 3600.0
"""How long a machine waits for machine 0, which may have a snapshot to build first."""
_POLL_S = 2.0


def address_of(
    stage: str, run: ResolvedRun, node_rank: int | None, rendezvous: str
) -> "NodeAddress | None":
    """Return which machine of a stage's training this is; None where there is one machine.

    Args:
        stage: One of `artifacts.STAGES`; only those that train have several machines.
        run: The cycle, which fixes how many there are.
        node_rank: From 0; None where nobody said.
        rendezvous: HOST:PORT of machine 0; '' where nobody said.

    Raises:
        ConfigurationError: the rank does not fit the run, or is missing; there is no rendezvous.
    """
    from training.fitting.spec import NodeAddress

    if stage not in SIDES or (run.num_nodes == 1 and node_rank in (None, 0)):
        return None
    node = NodeAddress(rank=-1 if node_rank is None else node_rank, rendezvous=rendezvous)
    if not 0 <= node.rank < run.num_nodes or not node.is_complete:
        raise ConfigurationError(
            f"{stage} of {run.run_uri} trains on {run.num_nodes} machine(s), and node rank "
            f"{node_rank} with rendezvous {rendezvous!r} is given; expected a rank in "
            f"[0, {run.num_nodes}) and HOST:PORT of machine 0; run the same command on each "
            f"machine with --node-rank and --rendezvous (a Job of Kubernetes sets both)"
        )
    return node


def work_dir_of(run: ResolvedRun, side: str) -> Path:
    """Return where one side's checkpoints are kept between attempts of the same run."""
    if storage.is_local(run.run_uri):
        folder = storage.local_path(run.run_uri) / f"train_{side}" / "training"
    else:
        # Two workspaces may hold a run of the same name.
        name = f"{run.run_id}-{digest_of(run.run_uri)[:8]}-{side}"
        kept = Path(run.work_folder) if run.work_folder else own_temporary_folder("work")
        folder = kept / name
    with storage.translated_errors(str(folder), "making"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def help_train(
    stage: str, run: ResolvedRun, node: "NodeAddress", is_done: Callable[[], bool]
) -> None:
    """Do a further machine's part of a stage's training; publish nothing.

    It waits for the specification of this code and this run, and takes no earlier attempt's. It
    returns also where machine 0 finds that there is nothing to train.

    Args:
        stage: `train_challenger` or `train_anchor`.
        run: The cycle.
        node: Which machine this is, above 0.
        is_done: Whether machine 0 has published the stage.

    Raises:
        TransientStorageError: machine 0 failed, or prepared no training in time.
        HomefeedError: as `training.launch.launcher.train` raises.
    """
    from training.fitting.spec import TrainingSpec, WorkFolder, read
    from training.launch import launcher

    def failure() -> StageFailure | None:
        uri = failure_uri(run.run_uri, stage)
        return storage.read_model(uri, StageFailure) if storage.exists(uri) else None

    work_dir = work_dir_of(run, SIDES[stage])
    ours = (run.num_nodes, run.num_devices, run.accelerator, code_digest(), run.as_of)
    before, deadline = failure(), time.monotonic() + _PREPARE_WAIT_S
    while time.monotonic() < deadline:
        if is_done():
            log.info("machine 0 has published %s; machine %d has nothing to do", stage, node.rank)
            return
        if (found := read(WorkFolder(work_dir).spec, TrainingSpec)) is not None:
            hardware = (found.num_nodes, found.num_devices, found.accelerator)
            if (*hardware, found.lineage.code_digest, found.lineage.as_of) == ours:
                with storage.local_copy(found.snapshot.uri) as snapshot_dir:
                    verify_files(found.snapshot, snapshot_dir)
                    own = {"snapshot_dir": str(snapshot_dir), "work_dir": str(work_dir)}
                    launcher.train(found.model_copy(update=own), node)
                return
        if (failed := failure()) is not None and failed != before:
            raise TransientStorageError(
                f"machine {node.rank} of {stage} had nothing to do yet when another machine "
                f"failed: {failed.error_class}: {failed.message}; mend that, then run the stage "
                f"again on all machines"
            )
        time.sleep(_POLL_S)
    raise TransientStorageError(
        f"machine {node.rank} of {stage} waited {_PREPARE_WAIT_S:.0f} s for machine 0 to prepare "
        f"the training in {work_dir}; expected its specification there; see that machine 0 runs "
        f"and that both see that folder, then run the stage again on all machines"
    )
