"""A registry in a file, for tests of the record: it loses answers when it is told to.

It has the calls of MLflow's client that moves and deletions make, and its errors. Its state lies in
a file, so that it outlives a process that is killed. The tests that use it are repeated, in smaller
number, with a real server.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS

from pipelines.contracts.artifacts import ModelRef
from pipelines.registry import registry, tracking
from training.bundle import files as bundle_files


class Missing(RestException):
    def __init__(self, what: str) -> None:
        super().__init__(
            {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"{what} was not found"}
        )


class Page(list[Any]):
    token: str | None = None


class FakeRegistry:
    """One registered model, whose versions are logged models.

    `lose` says of each of the next changes whether 'request' or 'answer' is lost; with
    'all that follows' the answer is lost and the registry is down from then on. With 'to a proxy'
    the change is made, and a proxy answers that nothing is there. With 'late' the request is under
    way for longer than the client waits: it arrives when `arrive` is called.
    """

    tracking_uri = "http://127.0.0.1:9"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lose: list[str] = []
        self._under_way: list[dict[str, Any]] = []
        self.is_down = False
        self.point: Callable[[str], None] = lambda name: None
        self.aliases: dict[str, str] = {}  # Besides `champion`.
        self.others: list[Any] = []  # Versions of other registered models.
        if not path.exists():
            self._save({"alias": None, "versions": {}, "tags": {}, "deleted": []})

    def add(self, model: ModelRef, run_id: str = "", made_at: datetime | None = None) -> ModelRef:
        state, made = self._load(), (made_at or datetime.fromtimestamp(0, UTC)).timestamp()
        known = model.model_dump(mode="json") | {"homefeed_run_id": run_id, "made_at": made}
        state["versions"][model.version] = known
        self._save(state)
        return model

    @property
    def alias(self) -> str | None:
        return self._load()["alias"]

    @alias.setter
    def alias(self, version: str | None) -> None:
        self._save(self._load() | {"alias": version})

    @property
    def deleted(self) -> list[str]:
        """The ids of logged models that are marked as deleted."""
        return self._load()["deleted"]

    def add_theirs(self, version: str) -> None:
        """Register a version's files in another registered model, too."""
        theirs = self.get_model_version("theirs", version)
        theirs.version = "1"
        self.others.append(theirs)

    def _load(self) -> dict[str, Any]:
        return json.loads(self._path.read_text())

    def _save(self, state: dict[str, Any]) -> None:
        begun = self._path.with_name(f".{threading.get_ident()}")
        begun.write_text(json.dumps(state))
        os.replace(begun, self._path)  # noqa: PTH105 (`Path.replace` is a point of worlds)

    def _read(self) -> dict[str, Any]:
        if self.is_down:
            raise MlflowException("the connection was refused")
        return self._load()

    def _change(self, what: str, changes: dict[str, Any]) -> None:
        state = self._read()
        lost = self.lose.pop(0) if self.lose else ""
        self.point(f"before {what}")
        if lost == "late":
            self._under_way.append(changes)
        elif lost != "request":
            self._save(state | changes)
        self.point(f"after {what}")
        if lost == "to a proxy":
            raise Missing("the page")
        if lost:
            self.is_down = lost == "all that follows"
            raise MlflowException(f"the {lost} was lost")

    def arrive(self) -> None:
        """Make the changes whose requests were under way."""
        for changes in self._under_way:
            self._save(self._load() | changes)
        self._under_way = []

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        version = self._read()["alias"]
        if version is None:
            raise Missing(f"alias {alias}")
        return self.get_model_version(name, version)

    def get_model_version(self, name: str, version: str) -> Any:
        found = self._read()["versions"].get(str(version))
        if found is None:
            raise Missing(f"version {version}")
        known = ("as_of", "bundle_digest", "snapshot_digest", "model_digest", "homefeed_run_id")
        return SimpleNamespace(
            name=name or found["name"],
            version=version,
            run_id=found["mlflow_run_id"],
            source=f"models:/m-{version}",
            tags={key: found[key] for key in known},
            creation_timestamp=found["made_at"] * 1000,
        )

    def search_model_versions(self, query: str = "", page_token: Any = None) -> Page:
        ours = [self.get_model_version("", version) for version in self._read()["versions"]]
        return Page(ours if query else [*ours, *self.others])

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        if str(version) not in self._read()["versions"]:
            raise Missing(f"version {version}")
        self._change(f"alias to v{version}", {"alias": str(version)})

    def create_registered_model(self, name: str, tags: dict[str, str], description: str) -> None:
        if self._read()["tags"]:
            raise MlflowException("it is there", error_code=RESOURCE_ALREADY_EXISTS)
        self._change(f"make {name}", {"tags": tags})

    def get_registered_model(self, name: str) -> Any:
        state = self._read()
        champion = {"champion": state["alias"]} if state["alias"] else {}
        return SimpleNamespace(name=name, tags=state["tags"], aliases=champion | self.aliases)

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        tags = self._read()["tags"] | {key: value}
        self._change(f"tag {key}", {"tags": tags})

    def get_logged_model(self, model_id: str) -> Any:
        if model_id in self._read()["deleted"]:
            raise Missing(model_id)
        location = f"file:///logged/{model_id}"
        return SimpleNamespace(name="logged", model_id=model_id, artifact_location=location)

    def delete_logged_model(self, model_id: str) -> None:
        self._change(f"delete {model_id}", {"deleted": [*self.deleted, model_id]})


@contextmanager
def asked_by_all(client: FakeRegistry) -> Iterator[FakeRegistry]:
    """Let everything that asks MLflow ask this registry; every version's files are sound."""

    def fetch(client: object, model: ModelRef, folder: Path) -> Path:
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "connect", lambda uri: client)
        patch.setattr(registry, "download_bundle", fetch)
        patch.setattr(bundle_files, "load_bundle", lambda folder: None)
        yield client
        # Put back later, what a test has set over it would stay for all tests that follow.
        assert registry.download_bundle is fetch, "undo what is patched before the world ends"
