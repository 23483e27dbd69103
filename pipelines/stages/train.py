"""`train_challenger` and `train_anchor`: train a side of the cycle, register it, publish it.

    <run>/train_<side>/training/    work folder with checkpoints, kept between attempts
    <output_uri>/bundle/            the bundle (see training/bundle/files.py)

The anchor is the accepted recipe made fresh by the accepted code, where the run's recipe or code is
another one. With it a cycle tells apart what the change is worth (challenger against fresh anchor)
and what fresh data is worth (fresh anchor against champion). The champion itself would not do: its
age flatters the challenger. Accepted code (`pipelines.registry.accepted_code`) runs this module in
a process that reads an `AnchorOrder` and writes a `FreshAnchor`, or the error. Training itself is
`training.launch.launcher`; what is accepted is told by `pipelines.registry.history`.
"""

import logging
import shlex
import shutil
import signal
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from pipelines import storage
from pipelines.alerts.commands import rebuild_command, stage_command
from pipelines.alerts.links import page_link
from pipelines.contracts.artifacts import (
    AnchorWhy,
    Challenger,
    DataReport,
    FreshAnchor,
    ResolvedRun,
    Snapshot,
)
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.code_identity import (
    ROOT,
    SNAPSHOT_CODE,
    code_digest,
    code_version,
    digest_meaning,
)
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    DataGateFailedError,
    HomefeedError,
    OwnFunctionError,
    ProcessKilledError,
    SnapshotDamagedError,
)
from pipelines.contracts.files import digest_files, own_temporary_folder, write_whole
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.contracts.processes import collect_seldom
from pipelines.contracts.snapshot_files import verify_files
from pipelines.registry import accepted_code, registry, tracking
from pipelines.settings import Settings
from pipelines.snapshot.counterpart import snapshot_to_train
from pipelines.stages.runner import WAIT_S

if TYPE_CHECKING:
    from training.fitting.spec import NodeAddress, TrainingResult, TrainingSpec

log = logging.getLogger(__name__)


def train_challenger(
    run: ResolvedRun,
    snapshot: Snapshot,
    report: DataReport,
    output_uri: str,
    node: "NodeAddress | None" = None,
) -> Challenger | None:
    """Train on the snapshot and register the result as the version with alias `challenger`.

    The work folder outlives the attempt: a retry resumes there. On several machines this is what
    machine 0 does (`node`); the others publish and return nothing.

    Raises:
        DataGateFailedError: the report does not accept this snapshot.
        DataContractError: the loss became NaN or infinite.
        TrackingUnavailableError: MLflow cannot be reached; what was trained is kept.
    """
    _require_accepted(report, snapshot, run.run_uri)
    return train_side(run, snapshot, "challenger", output_uri, node, report)


def train_anchor(
    run: ResolvedRun,
    snapshot: Snapshot,
    report: DataReport,
    output_uri: str,
    node: "NodeAddress | None" = None,
) -> FreshAnchor:
    """Train the accepted recipe by the accepted code, or say why there is nothing to do.

    An accepted recipe that the data does not allow any more, or whose own function is gone, and
    accepted code that cannot be run, are no failure of the cycle: the challenger is still judged,
    nothing is promoted, and people are told to name another. Every other failure is one, as it is
    of `train_challenger`: it may pass, or a person mends it.

    Raises:
        DataGateFailedError: the report does not accept this snapshot.
        SnapshotDamagedError: a file of the snapshot is missing or was altered.
        HomefeedError: as `train_challenger` raises.
    """
    _require_accepted(report, snapshot, run.run_uri)
    accepted, known = run.standing.anchor, run.standing.anchor_code_digest
    why = _decide(run, accepted)
    both, code = AnchorWhy.OTHER_BOTH, AnchorWhy.OTHER_CODE
    if accepted is None or why not in (AnchorWhy.OTHER_RECIPE, both, code):
        return FreshAnchor(why=why, problem="" if accepted else run.standing.problem)
    order = AnchorOrder(
        run=run,
        snapshot=snapshot,
        recipe=run.config if why is code else accepted,  # Two codes get the same seed.
        why=why,
        output_uri=output_uri,
        node=node and node.model_dump(),
    )
    is_run_here = why is AnchorWhy.OTHER_RECIPE or known == code_digest()
    return make_anchor(order) if is_run_here else by_accepted_code(order)


class AnchorOrder(Frozen):
    """What the fresh anchor is made of; it crosses to a process of the accepted code as JSON."""

    run: ResolvedRun
    snapshot: Snapshot  # The run's, which the data gate has accepted.
    recipe: RunConfig
    why: AnchorWhy
    output_uri: str
    is_snapshot_older: bool = False  # The accepted code computes snapshots in another way.
    node: dict[str, Any] | None  # JSON of this machine's `NodeAddress`.


def make_anchor(order: AnchorOrder) -> FreshAnchor:
    """Train the anchor by the code of this process; raises as `train_anchor` does."""
    from training.fitting.spec import NodeAddress

    run, recipe = order.run, order.recipe
    node = NodeAddress.model_validate(order.node) if order.node else None
    try:
        own = snapshot_to_train(run, order.snapshot, recipe, order.is_snapshot_older)
        made = run.model_copy(update={"config": recipe})
        trained = train_side(made, own, "anchor", order.output_uri, node)
    except SnapshotDamagedError:
        raise
    except (DataContractError, OwnFunctionError) as error:
        problem = (
            f"The accepted recipe {recipe.reference!r} cannot be made any more "
            f"({type(error).__name__}: {error}), so nothing is promoted; mend that and start a new "
            f"cycle, or accept another: `homefeed anchor set --recipe NAME --reason ...`."
        )
        log.warning("%s", problem)
        return FreshAnchor(why=AnchorWhy.NOT_POSSIBLE, problem=problem)
    return FreshAnchor(trained=trained, code_digest=code_digest(), snapshot=own, why=order.why)


def by_accepted_code(order: AnchorOrder) -> FreshAnchor:
    """Have the accepted code make the anchor, or say why it cannot."""
    from training.fitting.spec import TrainingError, read
    from training.launch import launcher

    run = order.run
    with storage.scratch_folder(run.workspace_uri) as scratch:
        code, asked, answer = (scratch / name for name in ("code", "order.json", "answer.json"))
        try:
            python, variables = accepted_code.install(run, code)
            theirs, ours = (digest_meaning(root, SNAPSHOT_CODE) for root in (code, ROOT))
            order = order.model_copy(update={"is_snapshot_older": theirs != ours})
            write_whole(asked, order.to_record())
            command = [python, "-m", __spec__.name, str(asked), str(answer)]
            exit_code, tail = launcher.run_to_end(
                command, variables | {"TMPDIR": str(scratch)}, scratch / "log"
            )
            if exit_code == 0 and (fresh := read(answer, FreshAnchor)) is not None:
                return fresh
            if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
                raise ProcessKilledError("the accepted code was killed; a retry goes on")
            if (left := read(answer, TrainingError)) is not None:
                raise left.to_error()
            said = tail[-1].strip() if tail else "nothing"
            raise ConfigurationError(f"it ended with exit code {exit_code} and said {said!r}")
        except HomefeedError as error:
            if error.is_retryable or isinstance(error, SnapshotDamagedError):
                raise
            return not_judged(run, order.recipe, error)


def not_judged(run: ResolvedRun, recipe: RunConfig, error: HomefeedError) -> FreshAnchor:
    """Return that the accepted code cannot be run or compared beside today's: a person decides."""
    accept = f"homefeed anchor set --recipe {shlex.quote(recipe.reference)} --reason ..."
    problem = (
        f"What the change of code is worth is not known, so nothing is promoted: the accepted code "
        f"({run.standing.anchor_code_digest[:12]}) made no model to compare "
        f"({type(error).__name__}: {error}). Mend that and start a new cycle, or accept today's "
        f"code by what the challenger is worth against the champion: `{accept}`."
    )
    log.warning("%s", problem)
    return FreshAnchor(why=AnchorWhy.CODE_NOT_RUN, problem=problem)


def train_side(
    run: ResolvedRun,
    snapshot: Snapshot,
    side: Literal["challenger", "anchor"],
    output_uri: str,
    node: "NodeAddress | None" = None,
    report: DataReport | None = None,
) -> Challenger | None:
    """Train one side of a cycle, with its configuration, and register the result under its alias.

    What is registered is the digest that the training noted, whatever lies there by now. `report`
    is for the MLflow run, and None where it is about another snapshot. A further machine registers
    nothing and gets None. Raises as `train_challenger` does.
    """
    from training.bundle import mlflow_model
    from training.fitting.metrics_file import replay

    # The code that runs now may differ from the code that resolved the run.
    code = {"code_version": code_version(), "code_digest": code_digest()}
    if node is not None and node.rank > 0:
        _train(run, snapshot, side, "", node)
        return None
    if side == "challenger":
        accepted_code.keep(run.workspace_uri)
    client = tracking.connect(run.tracking_uri)
    mlflow_run_id = tracking.open_run(client, run, side, side)
    tracking.log_config(client, mlflow_run_id, run.config, **code)
    tracking.log_dataset(client, mlflow_run_id, snapshot, "training")
    if report is not None:
        address_of = partial(page_link, workspace_uri=run.workspace_uri, settings=Settings())
        tracking.log_gate(client, mlflow_run_id, report, address_of)
    result = _train(run, snapshot, side, mlflow_run_id, node)
    with storage.scratch_folder(run.workspace_uri) as scratch:
        with translated_outages(run.tracking_uri):
            replay(client, Path(result.metrics_path), mlflow_run_id)
            logged = mlflow_model.log_bundle(client, Path(result.bundle_dir), mlflow_run_id)
        made = {"bundle_digest": result.bundle_digest, "model_digest": logged.digest}
        of = {"snapshot_digest": snapshot.digest, "homefeed_run_id": run.run_id}
        tags = made | of | {"homefeed_side": side, "recipe": run.config.recipe}
        model = registry.register(client, run, mlflow_run_id, logged.uri, tags, alias=side)
        # A copy is published, so that a retry after this point finds the bundle in the work folder.
        copied = shutil.copytree(result.bundle_dir, scratch / "bundle")
        again = f"run `{stage_command(f'train_{side}', run.run_uri)}`: the bundle is written anew"
        registry.require_digest(model, "bundle", copied, again)
        bundle_files = digest_files(copied)
        storage.publish_folder(copied, storage.join(output_uri, "bundle"))
    return Challenger(
        model=model,
        bundle_uri=storage.join(output_uri, "bundle"),
        bundle_files=bundle_files,
        seed=run.config.training.seed,
        **result.model_dump(include={"num_steps", "num_training_examples", "final_training_loss"}),
    )


def _train(
    run: ResolvedRun,
    snapshot: Snapshot,
    side: str,
    mlflow_run_id: str,
    node: "NodeAddress | None",
) -> "TrainingResult":
    """Train on a sound snapshot, in a work folder that only this training's machines work in."""
    from training.launch import launcher

    repair = f"run `{rebuild_command(run.run_uri)}`"
    if side == "anchor":
        repair = "delete its folder: it is built again when the stage is run again"
    of_run = {"num_devices", "num_nodes", "accelerator", "tracking_uri"}
    told = run.model_dump(include=of_run) | {"mlflow_run_id": mlflow_run_id}
    with storage.local_copy(snapshot.uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir, repair)
        place = work_dir_of(run, side)
        spec = spec_apart(snapshot, snapshot_dir, run.config, run.as_of, place, told)
        # Each machine waits for its own of an earlier attempt, whose Job may be ending still.
        held = f"{spec.work_dir}/machine-{node.rank}" if node and node.rank else spec.work_dir
        with storage.exclusive_lock(held, f"train_{side} of {run.run_uri}", WAIT_S):
            return launcher.train(spec, node)


def spec_apart(
    snapshot: Snapshot,
    snapshot_dir: Path,
    config: RunConfig,
    as_of: datetime,
    work_dir: Path,
    told: dict[str, Any],
) -> "TrainingSpec":
    """Return a training by this code, and make its folder.

    No MLflow hears of it where nothing of that is told beside the hardware.
    """
    from training.fitting.spec import Lineage, TrainingSpec

    with storage.translated_errors(str(work_dir), "making"):
        work_dir.mkdir(parents=True, exist_ok=True)
    return TrainingSpec(
        snapshot=snapshot,
        config=config,
        lineage=Lineage(
            as_of=as_of,
            snapshot_digest=snapshot.digest,
            code_version=code_version(),
            code_digest=code_digest(),
            seed=config.training.seed,
        ),
        snapshot_dir=str(snapshot_dir),
        work_dir=str(work_dir),
        **({"tracking_uri": "", "mlflow_run_id": ""} | told),
    )


def train_apart(
    snapshot: Snapshot,
    config: RunConfig,
    work_dir: Path,
    accelerator: Literal["cpu", "gpu"],
    num_devices: int = 1,
    starts_from: str = "",
) -> "TrainingResult":
    """Train a recipe on a snapshot on this machine; nothing is registered, no MLflow hears of it.

    What ended in the folder is found again, and what was interrupted goes on. With `starts_from`
    the model begins with the weights of that bundle.

    Raises:
        SnapshotDamagedError: a file of the snapshot is missing or was altered.
        HomefeedError: as `training.launch.launcher.train` raises.
    """
    from training.launch import launcher

    with storage.local_copy(snapshot.uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir)
        told = {"num_devices": num_devices, "accelerator": accelerator, "starts_from": starts_from}
        spec = spec_apart(snapshot, snapshot_dir, config, snapshot.as_of, work_dir, told)
        return launcher.train(spec)


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


def _require_accepted(report: DataReport, snapshot: Snapshot, run_uri: str) -> None:
    """Refuse to train on a snapshot that the data gate has refused, or not seen."""
    if report.snapshot_digest != snapshot.digest or not report.is_accepted:
        raise DataGateFailedError(
            f"the data gate's report is about snapshot {report.snapshot_digest[:12]} (accepted: "
            f"{report.is_accepted}); expected one that accepts {snapshot.digest[:12]}; run "
            f"`{stage_command('check_snapshot', run_uri, again=True)}`"
        )


def _decide(run: ResolvedRun, accepted: RunConfig | None) -> AnchorWhy:
    """Return what the challenger and the fresh anchor differ in, or why none is made."""
    known, ours = run.standing.anchor_code_digest, run.code_digest or code_digest()
    if accepted is None:
        return AnchorWhy.NOT_ACCEPTED
    if run.champion is None:
        return AnchorWhy.NOTHING_SERVES
    is_other_code = known not in ("", ours)
    if accepted.recipe_digest != run.config.recipe_digest:
        return AnchorWhy.OTHER_BOTH if is_other_code else AnchorWhy.OTHER_RECIPE
    return AnchorWhy.OTHER_CODE if is_other_code else AnchorWhy.SAME


def main(order_path: str, answer_path: str) -> int:
    """Make the anchor that an order file asks for; write it, or the error, and return the code."""
    from training.fitting.spec import TrainingError

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    told: HomefeedError
    try:
        order = AnchorOrder.from_record(Path(order_path).read_bytes())
        if (found := code_digest()) != (known := order.run.standing.anchor_code_digest):
            raise DataContractError(f"its wheel holds code {found[:12]}, expected {known[:12]}")
        write_whole(Path(answer_path), make_anchor(order).to_record())
        return 0
    except ValidationError as error:
        first = error.errors()[0]
        told = DataContractError(f"it cannot read today's records: {first['loc']}: {first['msg']}")
    except HomefeedError as error:
        told = error
    write_whole(Path(answer_path), TrainingError.of(told).to_record())
    log.error("%s", told)  # Who cannot read the record shows the last line.
    return told.exit_code


if __name__ == "__main__":
    collect_seldom()
    sys.exit(main(*sys.argv[1:]))
