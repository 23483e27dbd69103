"""The table of docs/features.md, from the catalogue. As a script it writes the table into the page.

python tests/support/feature_page.py
"""

from pathlib import Path

from pipelines.contracts.features import BASELINE_FEATURES, CATALOGUE, FeatureMeaning

PAGE = Path(__file__).resolve().parents[2] / "docs" / "features.md"
BEGIN, END = "<!-- features: begin -->\n", "<!-- features: end -->\n"


def table() -> str:
    """Return the table's Markdown."""
    head = "| name | formula | unit | options | missing where |\n|---|---|---|---|---|\n"
    return head + "".join(map(_line, CATALOGUE.values()))


def _line(meaning: FeatureMeaning) -> str:
    mark = " *" if meaning.name in BASELINE_FEATURES else ""
    options = ", ".join(f"`{name}` ({_default(value)})" for name, value in meaning.options.items())
    cells = (f"`{meaning.name}`{mark}", meaning.formula, meaning.unit, options or "none")
    return f"| {' | '.join(cells)} | {meaning.may_be_missing or 'never'} |\n"


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "not given"


def with_table(page: str) -> str:
    """Return the page with the table of today."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
