"""What a stage's container is given, whichever engine starts it: command, settings, places.

Not for the engines: those are `docker_stages` and `kubernetes_stages`. The DAG file imports this,
so nothing heavy is imported here.
"""

import json
import shlex
from pathlib import Path
from typing import Any, Literal, TypedDict

from pipelines.contracts.code_identity import DAG_CODE, DAG_VERSION, code_version, project_digest
from pipelines.settings import Settings

_OF_AIRFLOW = ("home", "stage_", "pod_template", "command", "anchor_", "docker_", "alert_")
"""How the names of settings begin that mean nothing in a container."""


class Hardware(TypedDict):
    """What a run trains on; it crosses from `resolve_run` to the trainings' tasks as JSON."""

    accelerator: Literal["cpu", "gpu"]
    devices: int  # processes on each machine, one for each GPU
    nodes: int  # machines


ONE_PROCESS: Hardware = {"accelerator": "cpu", "devices": 1, "nodes": 1}


def command_line(stage: str, run_uri: Any, settings: Settings) -> tuple[str, list[Any]]:
    """Return a stage's program and its arguments, for no shell: nothing is split or expanded."""
    program, *arguments = shlex.split(settings.command_of(stage))
    return program, [*arguments, "stage", stage, run_uri]


def environment_of(stage: str, settings: Settings) -> dict[str, str]:
    """Return what a stage must know of the deployment, as variables; no secret is among it.

    Version and digest of the DAG's own code are among it, which the stage compares with its own.
    The accepted code for `train_anchor` is another one on purpose, and gets none.
    """
    told = settings.model_dump(mode="json", include=settings.model_fields_set) | places_of(settings)
    told["tracking_uri"] = settings.tracking_uri
    found = {
        f"HOMEFEED_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in told.items()
        if not name.startswith(_OF_AIRFLOW)
    }
    if not (stage == "train_anchor" and settings.anchor_code):
        found[DAG_VERSION] = code_version()
        found[DAG_CODE] = project_digest()
    return found


def places_of(settings: Settings) -> dict[str, str]:
    """Return the settings that name places, by name: URIs, and absolute paths of local folders.

    A relative path would mean another folder in a container.
    """
    named = {
        "event_log": settings.event_log_location,
        "workspace": settings.workspace_location,
        "work_folder": settings.work_folder,
    }
    return {
        name: place if "://" in place else str(Path(place).absolute())
        for name, place in named.items()
        if place
    }
