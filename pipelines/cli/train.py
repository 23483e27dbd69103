"""`homefeed train`: train a bundle from a built snapshot, without a pipeline and without MLflow.

For trying options out and for machines without the orchestrator. Not for what serves: nothing is
registered, compared or promoted. Tested in tests/pipelines/cli/test_train.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import BaseModel, ValidationError

from pipelines import storage
from pipelines.cli.printing import say
from pipelines.contracts.artifacts import MAX_DEVICES, Snapshot
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.snapshot_files import verify_files
from pipelines.recipes.references import EXPECTED, make_recipe
from pipelines.settings import Settings

if TYPE_CHECKING:
    from training.fitting.spec import TrainingSpec

WITH_FIELDS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Typer hands on the options that are fields of the recipe."""


To = Annotated[
    str,
    typer.Option(
        help="Folder of the training, kept between attempts. What a training with other options "
        "left in it is deleted; one by other code is refused."
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        help=f"Recipe that the snapshot was built with: {EXPECTED}. HOMEFEED_RECIPE by default."
    ),
]
Devices = Annotated[int, typer.Option(min=1, max=MAX_DEVICES, help="Processes on each machine.")]
NumNodes = Annotated[
    int, typer.Option(min=1, help="Machines; start this on each, with the same folder.")
]
Rendezvous = Annotated[
    str,
    typer.Option(
        help="HOST:PORT of machine 0, a free port there, where several machines meet. They talk "
        "over the device of the host's name; GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME in the "
        "environment names another."
    ),
]


def train(  # noqa: PLR0913, PLR0917 - Typer makes an option of each
    context: typer.Context,
    snapshot: Annotated[str, typer.Option(help="URI or path of a built snapshot.")],
    to: To,
    recipe: Recipe = "",
    devices: Devices = 1,
    accelerator: Annotated[Literal["cpu", "gpu"], typer.Option(help="Hardware.")] = "cpu",
    num_nodes: NumNodes = 1,
    node_rank: Annotated[int, typer.Option(min=0, help="Which machine this is, from 0.")] = 0,
    rendezvous: Rendezvous = "",
) -> dict[str, Any]:
    """Train a bundle from a built snapshot, without the pipeline; print its folder last.

    Each field of the recipe's model and training may be given too, as --model.mlp-dims 64,16 or
    --training.seed 3; `homefeed recipe show RECIPE` lists them. The same options again go on with
    an interrupted training, or find it finished.
    """
    from training.environment import require_devices
    from training.fitting.spec import Lineage, NodeAddress, TrainingSpec
    from training.launch import launcher

    config = with_fields(make_recipe(recipe or Settings().recipe), context.args)
    require_devices(devices, accelerator)
    snapshot_uri = storage.to_uri(snapshot)
    built = _read_snapshot(snapshot_uri, config)
    is_alone = (num_nodes, node_rank, rendezvous) == (1, 0, "")
    with storage.local_copy(snapshot_uri) as snapshot_dir:
        verify_files(built, snapshot_dir)
        work_dir = storage.local_path(storage.to_uri(to))
        with storage.translated_errors(str(work_dir), "making"):
            work_dir.mkdir(parents=True, exist_ok=True)
        spec = TrainingSpec(
            snapshot=built,
            config=config,
            lineage=Lineage(
                as_of=built.as_of,
                snapshot_digest=built.digest,
                code_version=code_version(),
                code_digest=code_digest(),
                seed=config.training.seed,
            ),
            snapshot_dir=str(snapshot_dir),
            work_dir=str(work_dir),
            num_devices=devices,
            num_nodes=num_nodes,
            accelerator=accelerator,
            tracking_uri="",
            mlflow_run_id="",
        )
        _check_code(spec)
        node = None if is_alone else NodeAddress(rank=node_rank, rendezvous=rendezvous)
        result = launcher.train(spec, node)
    say(result.bundle_dir)
    return {"bundle_dir": result.bundle_dir, "result": result}


def with_fields(config: RunConfig, arguments: Sequence[str]) -> RunConfig:
    """Return a recipe with fields of its model and training replaced.

    Args:
        config: The recipe.
        arguments: `--model.FIELD VALUE` or `--training.FIELD=VALUE`, one after the other; a dash in
            a name is an underscore, values of a tuple are separated by commas, `null` is None.

    Raises:
        typer.BadParameter: there is no such field, or its value is missing.
        ConfigurationError: a value is not of its type or out of its range.
    """
    given: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
    words = iter(arguments)
    for word in words:
        option, has_value, value = word.partition("=")
        section, _, name = option.removeprefix("--").replace("-", "_").partition(".")
        fields: BaseModel | None = getattr(config, section) if section in given else None
        if fields is None or not option.startswith("--") or name not in type(fields).model_fields:
            raise typer.BadParameter(
                f"no such option: {option}; expected one of `homefeed train --help`, or a field of "
                f"the recipe, as `homefeed recipe show RECIPE` lists them"
            )
        text = value if has_value else next(words, None)
        if text is None:
            raise typer.BadParameter(f"option {option} requires a value")
        is_tuple = isinstance(getattr(fields, name), tuple)
        given[section][name] = text.split(",") if is_tuple else None if text == "null" else text
    changed = {}
    for section, values in given.items():
        before: BaseModel = getattr(config, section)
        try:
            changed[section] = type(before).model_validate(before.model_dump() | values)
        except ValidationError as error:
            found = "; ".join(
                f"--{section}.{str(detail['loc'][0]).replace('_', '-')} is {detail['input']!r}: "
                f"{detail['msg'][0].lower()}{detail['msg'][1:]}"
                for detail in error.errors(include_url=False)
            )
            raise ConfigurationError(f"{found}; correct the option") from None
    return config.model_copy(update=changed)


def _check_code(spec: "TrainingSpec") -> None:
    """Refuse a folder with the same training by other code.

    Going on would mix the weights of two codes, and beginning anew would delete hours of work.
    """
    from training.fitting.spec import TrainingSpec
    from training.fitting.work_folder import WorkFolder, read

    known = read(WorkFolder(Path(spec.work_dir)).spec, TrainingSpec)
    if known is None:
        return
    before, now = known.lineage, spec.lineage
    by_this_code = known.model_copy(update={"lineage": now})
    if before.code_digest != now.code_digest and by_this_code.identity() == spec.identity():
        raise ConfigurationError(
            f"{spec.work_dir} holds this training by other code: found digest "
            f"{before.code_digest[:12] or 'unknown'} (version {before.code_version}), expected "
            f"{now.code_digest[:12]} (version {now.code_version}) of the code that trains; other "
            f"code may give other weights; choose another --to, or delete the folder to train anew"
        )


def _read_snapshot(snapshot_uri: str, config: RunConfig) -> Snapshot:
    try:
        snapshot = storage.read_model(snapshot_manifest_uri(snapshot_uri), Snapshot)
    except FileNotFoundError:
        raise ConfigurationError(
            f"no manifest.json in {snapshot_uri}; expected a built snapshot, such as a folder in "
            f"<workspace>/snapshots; correct --snapshot"
        ) from None
    if snapshot.features != config.features:
        raise ConfigurationError(
            f"the snapshot {snapshot_uri} was built with other heads or features than recipe "
            f"{config.reference!r} has; expected the same; give --recipe, or build a new snapshot"
        )
    return snapshot
