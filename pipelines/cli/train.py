"""`homefeed train`, and trainings that differ in their seed: from a snapshot, without a pipeline.

For trying options out, for machines without the orchestrator, and for how much models differ by
luck alone. Not for what serves: nothing is registered, compared or promoted. Tested in
tests/pipelines/cli/test_train.py and test_anchor.py.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from pipelines import deletion, storage
from pipelines.cli.printing import Commands, say
from pipelines.contracts.artifacts import MAX_DEVICES, ResolvedRun, Snapshot
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.snapshot_files import verify_files
from pipelines.recipes.references import EXPECTED, make_recipe
from pipelines.registry.evidence import SeedNoise, keep, noise_folder
from pipelines.settings import Settings
from pipelines.stages.train import spec_apart, train_apart

if TYPE_CHECKING:
    from training.fitting.spec import TrainingSpec

app = Commands()


@app.command()
def train(  # noqa: PLR0913, PLR0917 - Typer makes an option of each
    snapshot: Annotated[str, Option(help="Folder, URI or beginning of a name.")],
    to: Annotated[
        str,
        Option(
            help="Folder of the training, kept between attempts. What a training with other "
            "options left in it is deleted; one by other code is refused."
        ),
    ],
    recipe: Annotated[
        str, Option(help=f"Recipe of the snapshot: {EXPECTED}. HOMEFEED_RECIPE by default.")
    ] = "",
    devices: Annotated[int, Option(min=1, max=MAX_DEVICES, help="Processes on each machine.")] = 1,
    accelerator: Annotated[Literal["cpu", "gpu"], Option(help="Hardware.")] = "cpu",
    num_nodes: Annotated[
        int, Option(min=1, help="Machines; start this on each, with the same folder.")
    ] = 1,
    node_rank: Annotated[int, Option(min=0, help="Which machine this is, from 0.")] = 0,
    rendezvous: Annotated[
        str, Option(help="HOST:PORT of machine 0, a free port there, where all machines meet.")
    ] = "",
) -> dict[str, Any]:
    """Train a bundle from a built snapshot, without the pipeline; print its folder last.

    Other values of the recipe's model and training stand in a recipe file, as `homefeed recipe
    show` prints one. The same options again go on with an interrupted training, or find it
    finished.
    """
    from training.environment import require_devices
    from training.fitting.spec import NodeAddress
    from training.launch import launcher

    settings = Settings()
    config = make_recipe(recipe or settings.recipe)
    require_devices(devices, accelerator)
    built = find_snapshot(snapshot, storage.to_uri(settings.workspace_location))
    if built.features != config.features:
        raise ConfigurationError(
            f"the snapshot {built.uri} was built with other heads or features than recipe "
            f"{config.reference!r} has; expected the same; give --recipe, or build a new snapshot"
        )
    is_alone = (num_nodes, node_rank, rendezvous) == (1, 0, "")
    with storage.local_copy(built.uri) as snapshot_dir:
        verify_files(built, snapshot_dir)
        work_dir = storage.local_path(storage.to_uri(to))
        hardware = {"num_devices": devices, "num_nodes": num_nodes, "accelerator": accelerator}
        spec = spec_apart(built, snapshot_dir, config, built.as_of, work_dir, hardware)
        _refuse_other_code(spec)
        address = NodeAddress(rank=node_rank, rendezvous=rendezvous)
        result = launcher.train(spec, None if is_alone else address)
    say(result.bundle_dir)
    return {"bundle_dir": result.bundle_dir, "result": result}


def find_snapshot(text: str, workspace_uri: str) -> Snapshot:
    """Return the snapshot that a text names, as it lies at its place, wherever it was built.

    Args:
        text: A snapshot's folder or URI, or the beginning of its name in the workspace.
        workspace_uri: Where names are looked for.

    Raises:
        ConfigurationError: there is none, or the text begins the names of several.
        DataContractError: its manifest was altered.
        TransientStorageError: the storage failed.
    """
    uris, folder = [storage.to_uri(text)] if text else [], storage.join(workspace_uri, "snapshots")
    if "/" not in text:
        names = [name for name in storage.list_names(folder) if name.startswith(text)]
        uris = [storage.join(folder, name) for name in names] or uris
    found = []
    for uri in uris:
        with contextlib.suppress(FileNotFoundError):  # It is being published, or was not.
            made = storage.read_model(snapshot_manifest_uri(uri), Snapshot)
            found.append(made.model_copy(update={"uri": uri}))
    if len(found) != 1 or not text:
        raise ConfigurationError(
            f"{text!r} names {len(found)} snapshots of {workspace_uri}; expected one, or a folder "
            f"with its manifest.json; a run's Data Docs name its snapshot"
        )
    return found[0]


def _refuse_other_code(spec: "TrainingSpec") -> None:
    """Refuse a folder with the same training by other code: hours of work would be deleted."""
    from training.fitting.spec import TrainingSpec, WorkFolder, read

    known = read(WorkFolder(Path(spec.work_dir)).spec, TrainingSpec)
    if known is None:
        return
    before, now = known.lineage, spec.lineage
    by_this_code = known.model_copy(update={"lineage": now})
    if before.code_digest != now.code_digest and by_this_code.identity() == spec.identity():
        raise ConfigurationError(
            f"{spec.work_dir} holds this training by other code: found {before.code_digest[:12]}, "
            f"expected {now.code_digest[:12]}, because other code may give other weights; choose "
            f"another --to, or delete the folder to train anew"
        )


def measure_seeds(run_uri: str, num_seeds: int) -> SeedNoise:
    """Train the recipe of a run on its snapshot, once for each seed, and score the holdout.

    Trainings that ended are found again if this is killed and repeated. A change of recipe is told
    from the luck of its seed only if that luck is known.

    Args:
        run_uri: A run whose snapshot is built.
        num_seeds: How many; the run's own seed is the first, the next ones follow it.

    Raises:
        ConfigurationError: the run has no snapshot, the workspace is remote, or the target metric
            is zero in all trainings.
        HomefeedError: as training raises.
    """
    from pipelines.stages.runner import read_artifact
    from training.bundle.score_split import score_split
    from training.data.reader import load_rows
    from validation.model_gate.comparison import Holdout, level_of

    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    snapshot = read_artifact(run_uri, "build_snapshot", Snapshot)
    folder = storage.local_path(noise_folder(run.workspace_uri)) / run.config.recipe_digest
    first, gate = run.config.training.seed, run.config.model_gate
    seeds, values = tuple(range(first, first + num_seeds)), list[float]()
    hardware = run.accelerator, run.num_devices * run.num_nodes
    with storage.local_copy(snapshot.uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir)
        rows = load_rows(snapshot, snapshot_dir, SPLIT_HOLDOUT)
        holdout = Holdout(rows, run.config.features.heads, gate)
        for seed in seeds:
            options = run.config.training.model_copy(update={"seed": seed})
            config = run.config.model_copy(update={"training": options})
            made = train_apart(snapshot, config, folder / f"seed-{seed}", *hardware)
            scores = score_split(Path(made.bundle_dir), snapshot, snapshot_dir, SPLIT_HOLDOUT)
            values.append(level_of(holdout, scores))
    if not sum(values) > 0:
        raise ConfigurationError(
            f"{gate.target_metric} of the {num_seeds} trainings is {values}; expected numbers "
            f"above zero; measure on a run whose holdout has the action"
        )
    measured = SeedNoise(
        recipe=run.config.reference,
        recipe_digest=run.config.recipe_digest,
        snapshot_digest=snapshot.digest,
        code_digest=code_digest(),
        target_metric=gate.target_metric,
        seeds=seeds,
        values=tuple(values),
    )
    keep(run.workspace_uri, measured)
    deletion.remove(storage.to_uri(folder))
    return measured
