"""The README's table of settings is complete, and what the pages name exists."""

import json
import re
from pathlib import Path

from pipelines.settings import Settings

ROW = re.compile(r"^\| `HOMEFEED_(\w+)` \| (`?)(.*?)\2 \|", re.MULTILINE)


def test_every_setting_is_in_the_table_with_its_default(repository: Path) -> None:
    table = {
        name.lower(): text for name, _, text in ROW.findall((repository / "README.md").read_text())
    }
    expected = {name: _shown(name, field.default) for name, field in Settings.model_fields.items()}
    assert table == expected


def test_every_linked_file_exists(repository: Path) -> None:
    for page in ("README.md", *(f"docs/{p.name}" for p in (repository / "docs").glob("*.md"))):
        text = (repository / page).read_text()
        links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
        missing = [link for link in links if not (repository / page).parent.joinpath(link).exists()]
        assert missing == [], page


def test_every_file_that_is_named_exists(repository: Path) -> None:
    for page in ("README.md", "docs/architecture.md", "docs/decisions.md"):
        named = re.findall(
            r"`((?:dags|docs|pipelines|tests|training|validation)/[\w/.]*)`",
            (repository / page).read_text(),
        )
        assert named, page
        assert [path for path in named if not (repository / path).exists()] == [], page


def _shown(name: str, default: object) -> str:
    """Return a default as the table shows it."""
    if name in ("event_log", "workspace"):
        return f"<home>/{name}"
    if isinstance(default, tuple):
        return json.dumps(list(default))
    return "empty" if default in (None, "") else str(default)
