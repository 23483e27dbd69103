"""What changed code costs: a cycle of other code trains the accepted one too, each time.

Two cycles on the sample by `homefeed retrain`. Before the second, the code of before a change is
made the accepted one, so that its wheel makes the fresh anchor, with other weights.
"""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from record import Row, row

from pipelines import storage
from pipelines.cli.look import DEFAULT_DAYS
from pipelines.contracts.artifacts import FreshAnchor
from pipelines.cycles.reading import newest_cycles, run_names
from pipelines.registry import accepted_code, history, moves
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact
from support.mlflow_server import mlflow_server
from support.older_code import OTHER, keep_older_code

RECIPE, NAME = "completejourney", "of_changed_code"
ROOT = Path(__file__).resolve().parents[2]


def measure() -> list[Row]:
    """Run both cycles; report the second one's processor time by stage, and the files kept."""
    with (
        tempfile.TemporaryDirectory(prefix="homefeed-bench-") as name,
        mlflow_server(Path(name) / "mlflow") as tracking_uri,
    ):
        home, settings = Path(name) / "home", Settings(home=str(Path(name) / "home"))
        own = {"HOMEFEED_TRACKING_URI": tracking_uri, "HOMEFEED_HOME": str(home)}
        own |= {"HOMEFEED_RECIPE": RECIPE, "HOMEFEED_REGISTERED_MODEL": NAME}

        def run(*arguments: str) -> None:
            command = [sys.executable, "-m", "pipelines.cli", *arguments]
            subprocess.run(command, cwd=ROOT, check=True, env=os.environ | own, stdout=sys.stderr)

        run("ingest", RECIPE, "--to", str(home / "event_log"))
        run("retrain", "--as-of", DEFAULT_DAYS[0])
        workspace_uri = storage.to_uri(home / "workspace")
        digest = keep_older_code(workspace_uri, Path(name) / "older", OTHER)
        recipe = history.load(workspace_uri, NAME).recipes.accepted
        assert recipe is not None
        recipe = recipe.model_copy(update={"code_digest": digest})
        moves.accept_recipe((workspace_uri, NAME), recipe, datetime.now(UTC), "of before a change")
        run("retrain", "--as-of", DEFAULT_DAYS[1])
        cycle = newest_cycles(workspace_uri, run_names(workspace_uri), settings, 1)[0]
        assert read_artifact(cycle.run_uri, "train_anchor", FreshAnchor).code_digest == digest
        hours = {each.stage: each.usage.cpu_s / 3600 for each in cycle.costs if each.usage}
        place = storage.local_path(accepted_code.place_of(workspace_uri, digest))
        kept_mib = sum(path.stat().st_size for path in place.iterdir()) / 2**20
    anchor, whole = hours["train_anchor"], sum(hours.values())
    return [
        row(
            "cycle_core_hours",
            whole,
            "core-hours of a cycle of changed code, both models trained",
            ratio=whole / (whole - anchor),
            peer="the same cycle without train_anchor",
            spread=", ".join(f"{s} {each:.3f}" for s, each in hours.items() if each > 0.005),
            rows=1,
            seed="17",
            note=f"accepted code keeps {kept_mib:.1f} MiB; where packages are as pinned its "
            f"environment lasts as long as the training",
        )
    ]
