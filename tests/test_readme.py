"""README and docs/ are short, what they name exists, and the settings' page is complete."""

import re
from pathlib import Path

from support import settings_page

MAX_README_LINES = 170
MAX_WORDS_OF_DOCS = 20_000


def test_the_page_of_settings_is_made_of_their_descriptions() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), (
        "run `python tests/support/settings_page.py`"
    )


def test_readme_and_pages_are_short_enough_to_be_read(repository: Path) -> None:
    assert len((repository / "README.md").read_text().splitlines()) <= MAX_README_LINES
    pages = (repository / "docs").glob("*.md")
    words = (word for page in pages for word in page.read_text().split())
    assert sum(re.search(r"\w", word) is not None for word in words) <= MAX_WORDS_OF_DOCS


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
