"""What a place looks like, in so much detail that any write to it shows."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from pipelines.contracts.base import sha256_of


def look_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file and folder with its time of change; what came and went shows in its folder's."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            sha256_of(path) if path.is_file() else "",
        )
        for path in sorted([folder, *folder.rglob("*")])
    }


def look_of_registry(client: MlflowClient, name: str) -> dict[str, Any]:
    """All runs, versions and aliases, with their tags."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments)
    versions = client.search_model_versions(f"name = '{name}'")
    return {
        "experiments": sorted(experiments),
        "runs": sorted((r.info.run_id, str(r.to_dictionary())) for r in runs),
        "versions": sorted((int(v.version), str(dict(v.tags)), v.source) for v in versions),
        "aliases": dict(client.get_registered_model(name).aliases),
        "tags": dict(client.get_registered_model(name).tags),
    }
