"""The table of metrics: names as OpenTelemetry wants them, and the page that shows them."""

import re
from pathlib import Path

from pipelines.metrics.instruments import INSTRUMENTS

ROW = re.compile(r"^\| `(homefeed\.[\w.]+)` \| `([^`]+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


def test_names_and_units_follow_the_conventions() -> None:
    names = [each.name for each in INSTRUMENTS]
    assert len(set(names)) == len(names)
    for each in INSTRUMENTS:
        assert re.fullmatch(r"homefeed(\.[a-z]+(_[a-z]+)*)+", each.name), each.name
        assert re.fullmatch(r"s|By|\{[a-z]+\}", each.unit), each.name
        assert each.description.endswith("."), each.name
        # A name that is the beginning of another one would be a folder and a file at once.
        assert not any(name.startswith(f"{each.name}.") for name in names), each.name


def test_the_page_shows_the_table(repository: Path) -> None:
    found = ROW.findall((repository / "docs" / "observability.md").read_text())
    assert found == [
        (
            *(each.name, each.unit),
            ", ".join(f"`{name}`" for name in each.attributes),
            each.description,
        )
        for each in INSTRUMENTS
    ]
