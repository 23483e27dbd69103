"""docs/runbook.md has a section for each kind of alert and each exit code, and each is provoked."""

import re
from pathlib import Path

import pytest

from pipelines.cli.main import WRONG_USAGE
from pipelines.contracts import errors
from pipelines.contracts.alert import AlertKind

PARTS = ("Means.", "Look.", "Do.", "Done when.")
PROVOKED = re.compile(r"^Provoked by: `(tests/[\w/]+\.py)::(test_\w+)`$", re.MULTILINE)
BY_SIGNAL = {137, 143}
"""How a shell tells of SIGKILL and SIGTERM."""


@pytest.fixture
def sections(repository: Path) -> dict[str, str]:
    """The sections by their headings."""
    text = (repository / "docs" / "runbook.md").read_text()
    return dict(part.split("\n", 1) for part in text.split("\n## ")[1:])


def codes() -> set[int]:
    """The exit codes of a stage; `homefeed local` has one of its own for services that are away."""
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    return {each.exit_code for each in kinds if issubclass(each, errors.HomefeedError)}


def test_every_alert_and_every_exit_code_has_a_section(sections: dict[str, str]) -> None:
    wanted = [f"Alert: {kind.value}" for kind in AlertKind]
    wanted += [f"Exit code {code}" for code in sorted({WRONG_USAGE, *codes(), *BY_SIGNAL})]
    assert list(sections) == wanted


def test_every_section_says_all_and_names_the_test_that_provokes_it(
    sections: dict[str, str], repository: Path
) -> None:
    for name, text in sections.items():
        places = [text.find(f"**{part}**") for part in PARTS]
        assert -1 not in places and places == sorted(places), name
        (provoked,) = PROVOKED.findall(text)
        path, test = provoked
        assert f"def {test}(" in (repository / path).read_text(), name
