"""A registry in a file, for tests of the record: it loses answers when it is told to.

It has the calls of MLflow's client that promotion and rollback make, and its errors. Its state lies
in a file, so that it outlives a process that is killed. The tests that use it are repeated, in
smaller number, with a real server.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS

from pipelines.contracts.artifacts import ModelRef


class Missing(RestException):
    def __init__(self, what: str) -> None:
        super().__init__(
            {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"{what} was not found"}
        )


class FakeRegistry:
    """One registered model.

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
        if not path.exists():
            self._save({"alias": None, "versions": {}, "tags": {}})

    def add(self, model: ModelRef) -> ModelRef:
        state = self._load()
        state["versions"][model.version] = model.model_dump(mode="json")
        self._save(state)
        return model

    @property
    def alias(self) -> str | None:
        return self._load()["alias"]

    @alias.setter
    def alias(self, version: str | None) -> None:
        self._save(self._load() | {"alias": version})

    def _load(self) -> dict[str, Any]:
        return json.loads(self._path.read_text())

    def _save(self, state: dict[str, Any]) -> None:
        self._path.write_text(json.dumps(state))

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
        known = ("as_of", "bundle_digest", "snapshot_digest", "model_digest")
        tags = {key: found[key] for key in known if key in found}
        return SimpleNamespace(
            name=name,
            version=version,
            run_id=found["mlflow_run_id"],
            source=f"mlflow-artifacts:/1/{found['mlflow_run_id']}/artifacts/model",
            tags=tags,
            creation_timestamp=0,
        )

    def search_model_versions(self, query: str) -> list[Any]:
        return [self.get_model_version("", version) for version in self._read()["versions"]]

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        if str(version) not in self._read()["versions"]:
            raise Missing(f"version {version}")
        self._change(f"alias to v{version}", {"alias": str(version)})

    def create_registered_model(self, name: str, tags: dict[str, str], description: str) -> None:
        if self._read()["tags"]:
            raise MlflowException("it is there", error_code=RESOURCE_ALREADY_EXISTS)
        self._change(f"make {name}", {"tags": tags})

    def get_registered_model(self, name: str) -> Any:
        return SimpleNamespace(tags=self._read()["tags"])

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        tags = self._read()["tags"] | {key: value}
        self._change(f"tag {key}", {"tags": tags})
