"""Recipes as the log of moves keeps them: which one is accepted, and which are on hold.

The accepted recipe is the *anchor*: a challenger of another recipe is held against it, and
`train_anchor` makes it fresh in such a cycle. Not for deciding when it changes: that does a verdict
(`validation.model_gate.policy`), a rollback and a person (`pipelines.registry.by_hand`).
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.contracts.run_layout import StageRecord, manifest_uri

log = logging.getLogger(__name__)
_RUN_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f]+")
NAME_ONE = "name the accepted recipe: `homefeed anchor set --recipe NAME --reason ...`"


class Recipe(Frozen):
    """A recipe of a model: a configuration, and the code that made models of it."""

    config: dict[str, Any] = Field(description="JSON form of a RunConfig, of today or of then.")
    code_digest: str = Field(description="`code_identity.code_digest` of that code; '' unknown.")
    run_uri: str | None = Field(description="Cycle that it was read from; None: a named recipe.")

    def parse(self) -> RunConfig:
        """Return the configuration.

        Raises:
            ConfigurationError: today's code does not know one of its options.
        """
        try:
            return RunConfig.model_validate(self.config)
        except ValidationError as error:
            raise ConfigurationError(
                f"the accepted recipe {self.config.get('recipe')!r} cannot be read by this code: "
                f"{error}; {NAME_ONE}"
            ) from None

    @property
    def digest(self) -> str:
        """Its digest by today's code; '' where it cannot be read, for it cannot be trained."""
        try:
            return self.parse().recipe_digest
        except ConfigurationError:
            return ""


class HeldRecipe(Frozen):
    """A recipe that was rolled back and may not be promoted until somebody releases it."""

    recipe: Recipe
    reason: str

    @property
    def digest(self) -> str:
        """Its digest by today's code, which may know more options; '' where it cannot be read."""
        return self.recipe.digest


class Recipes(Frozen):
    """All that holds of recipes after an entry of the log."""

    accepted: Recipe | None = Field(default=None, description="None where it is not known.")
    held: tuple[HeldRecipe, ...] = Field(default=(), description="Recipes on hold.")

    def without(self, digest: str) -> "Recipes":
        """Return the same with a recipe no longer on hold."""
        held = tuple(each for each in self.held if each.digest != digest)
        return self.model_copy(update={"held": held})


def recipe_of(run: ResolvedRun) -> Recipe:
    """Return the recipe of a cycle."""
    config = run.config.model_dump(mode="json")
    return Recipe(config=config, code_digest=run.code_digest, run_uri=run.run_uri)


def recipe_of_model(workspace_uri: str, model: ModelRef, tags: Mapping[str, str]) -> Recipe:
    """Return the recipe that made a registered model, from the cycle that its tags name.

    Args:
        workspace_uri: The workspace.
        model: The model, for the message.
        tags: Of its version in the registry. They are input: the run must be one of the workspace.

    Raises:
        ConfigurationError: that cycle's folder is gone, cannot be read, or was edited.
    """
    run_id = tags.get("homefeed_run_id", "")
    uri = manifest_uri(storage.join(workspace_uri, "runs", run_id or "(unnamed)"), "resolve_run")
    try:
        if not _RUN_NAME.fullmatch(run_id):
            raise ConfigurationError(f"tag homefeed_run_id is {run_id!r}, which names no run")
        record = storage.read_model(uri, StageRecord)
        artifact = record.artifact
        if not record.is_sound() or artifact["run_id"] != run_id:
            raise ConfigurationError("the manifest was edited, or is another run's")
        # A fresh anchor was made by the recipe that was accepted when its cycle began.
        is_anchor = tags.get("homefeed_side") == "anchor"
        config = dict(artifact["standing"]["anchor"] if is_anchor else artifact["config"])
    except TransientStorageError:
        raise  # It may be read in a minute.
    except (FileNotFoundError, HomefeedError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the recipe of {model.label} cannot be read from {uri}: {type(error).__name__} "
            f"{error}; expected the manifest of the cycle that trained it; put it back, or "
            f"{NAME_ONE}"
        ) from None
    run_uri = storage.join(workspace_uri, "runs", run_id)
    return Recipe(config=config, code_digest=tags.get("code_digest", ""), run_uri=run_uri)
