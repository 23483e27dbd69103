"""docs/settings.md, made from the docstrings of the settings. As a script it writes the page.

python tests/support/settings_page.py
"""

import json
from pathlib import Path

from pipelines.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
HEAD = """# Settings

Where things run is environment variables; what a cycle computes is a recipe
([recipes.md](recipes.md)). A variable that is empty counts as not set. This page is made from the
docstrings in `pipelines/settings.py` by `python tests/support/settings_page.py`.

| variable | default | meaning |
|---|---|---|
"""
TAIL = """
An object store (`s3://bucket/path`) is found by `AWS_ENDPOINT_URL`, `AWS_REGION` and the keys in
the environment, not by keys or a query in the URI, which is refused. It must have conditional
writes. MLflow's credentials are `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`. Metrics
are sent only where OpenTelemetry's own variables say so ([observability.md](observability.md)).
"""


def page() -> str:
    """Return the page as it should be."""
    rows = (
        f"| `HOMEFEED_{name.upper()}` | {_shown(name, field.default)} | "
        f"{' '.join(str(field.description).split())} |\n"
        for name, field in Settings.model_fields.items()
    )
    return HEAD + "".join(rows) + TAIL


def _shown(name: str, default: object) -> str:
    if name in ("event_log", "workspace"):
        return f"`<home>/{name}`"
    if default in (None, ""):
        return "empty"
    return f"`{json.dumps(default) if isinstance(default, tuple | dict) else default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
