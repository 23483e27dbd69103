"""`homefeed train`: train a bundle from a built snapshot, without a pipeline and without MLflow.

For trying options out and for machines without the orchestrator. Not for what serves: nothing is
registered, compared or promoted.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from pipelines import storage
from pipelines.cli.say import say
from pipelines.contracts.artifacts import MAX_DEVICES, Snapshot
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.config import ModelConfig, RunConfig, TrainingConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.snapshot_files import verify_files
from pipelines.recipes.references import EXPECTED, make_recipe
from pipelines.settings import Settings

if TYPE_CHECKING:
    from training.fitting.spec import TrainingResult, TrainingSpec

# pydantic-settings parses the options, so typer hands on all arguments, --help too.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
_PROGRAM = "homefeed train"


class TrainOptions(BaseSettings):
    """Train a bundle from a built snapshot, without the pipeline and without MLflow.

    The same options again go on with an interrupted training, or find it finished. The folder of
    the bundle is printed last.
    """

    model_config = SettingsConfigDict(
        cli_prog_name=_PROGRAM,
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        nested_model_default_partial_update=True,  # an override keeps the recipe's other values
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
    )

    snapshot: str = Field(description="URI or path of a built snapshot.")
    to: str = Field(
        description="Folder of the training, kept between attempts. What a training with other "
        "options left in it is deleted; one by other code is refused."
    )
    recipe: str = Field(
        default="",
        description=f"Recipe that the snapshot was built with: {EXPECTED}. Its values are the "
        "defaults below. HOMEFEED_RECIPE by default.",
    )
    devices: int = Field(default=1, ge=1, le=MAX_DEVICES, description="Processes on each machine.")
    accelerator: Literal["cpu", "gpu"] = Field(default="cpu", description="Hardware.")
    num_nodes: int = Field(
        default=1, ge=1, description="Machines; start this on each, with the same folder."
    )
    node_rank: int = Field(default=0, ge=0, description="Which machine this is, from 0.")
    rendezvous: str = Field(
        default="",
        description="HOST:PORT of machine 0, a free port there, where several machines meet. They "
        "talk over the device of the host's name; GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME in the "
        "environment names another.",
    )
    model: ModelConfig
    training: TrainingConfig

    @classmethod
    def settings_customise_sources(
        cls, *_: Any, **sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the command line alone: a variable named `model` would change what is trained."""
        return (sources["init_settings"],)


def train(context: typer.Context) -> dict[str, Any]:
    """Train a bundle from a built snapshot, without the pipeline; print its folder."""
    options, config = parse(context.args)
    result = run(options, config)
    say(result.bundle_dir)
    return {"bundle_dir": result.bundle_dir, "result": result}


def parse(arguments: list[str]) -> tuple[TrainOptions, RunConfig]:
    """Return the options given, and the recipe with those of its values replaced.

    Raises:
        ConfigurationError: an option is unknown, missing, not of its type or out of its range.
    """
    recipe = make_recipe(_recipe_name(arguments))
    try:
        options = CliApp.run(_with_defaults(recipe), cli_args=arguments)
    except ValidationError as error:
        found = "; ".join(_problem(detail) for detail in error.errors(include_url=False))
        raise ConfigurationError(f"{found}; see `{_PROGRAM} --help`") from None
    except SettingsError as error:
        raise ConfigurationError(f"{error}; expected the options of `{_PROGRAM} --help`") from None
    changed = {"model": options.model, "training": options.training}
    return options, recipe.model_copy(update=changed)


def run(options: TrainOptions, config: RunConfig) -> "TrainingResult":
    """Train, or find the training finished.

    Raises:
        ConfigurationError: there is no snapshot, or it was built with another recipe; the folder
            has this training by other code.
        DataContractError: a file of the snapshot is missing or altered.
        HomefeedError: see `training.launch.launcher.train`.
    """
    from training.environment import require_devices
    from training.fitting.spec import NodeAddress
    from training.launch import launcher

    require_devices(options.devices, options.accelerator)
    snapshot_uri = storage.to_uri(options.snapshot)
    snapshot = _read_snapshot(snapshot_uri, config)
    is_alone = (options.num_nodes, options.node_rank, options.rendezvous) == (1, 0, "")
    node = NodeAddress(rank=options.node_rank, rendezvous=options.rendezvous)
    with storage.local_copy(snapshot_uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir)
        spec = _specify(options, config, snapshot, snapshot_dir)
        _check_code(spec)
        return launcher.train(spec, None if is_alone else node)


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


def _recipe_name(arguments: list[str]) -> str:
    """Find the recipe first: the defaults that --help shows are its values."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", nargs="?")
    return parser.parse_known_args(arguments)[0].recipe or Settings().recipe


def _with_defaults(defaults: RunConfig) -> type[TrainOptions]:
    """Return the options with the recipe's values as their defaults."""

    class RecipeOptions(TrainOptions):
        __doc__ = TrainOptions.__doc__

        model: ModelConfig = defaults.model
        training: TrainingConfig = defaults.training

    return RecipeOptions


def _problem(detail: Any) -> str:
    """Say in one line what is wrong with one option (`ValidationError.errors()`)."""
    option = "--" + ".".join(str(part) for part in detail["loc"][:2]).replace("_", "-")
    if detail["type"] == "missing":
        return f"{option} is missing"
    return f"{option} is {detail['input']!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


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


def _specify(
    options: TrainOptions, config: RunConfig, snapshot: Snapshot, snapshot_dir: Path
) -> "TrainingSpec":
    from training.fitting.spec import Lineage, TrainingSpec

    work_dir = storage.local_path(storage.to_uri(options.to))
    with storage.translated_errors(str(work_dir), "making"):
        work_dir.mkdir(parents=True, exist_ok=True)
    return TrainingSpec(
        snapshot=snapshot,
        config=config,
        lineage=Lineage(
            as_of=snapshot.as_of,
            snapshot_digest=snapshot.digest,
            code_version=code_version(),
            code_digest=code_digest(),
            seed=config.training.seed,
        ),
        snapshot_dir=str(snapshot_dir),
        work_dir=str(work_dir),
        num_devices=options.devices,
        num_nodes=options.num_nodes,
        accelerator=options.accelerator,
        tracking_uri="",
        mlflow_run_id="",
    )
