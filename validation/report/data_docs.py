"""Data Docs that read well without a network: an overview of ours before Great Expectations' pages.

Great Expectations' pages load styles and scripts from several CDNs and images from a bucket. Here
these links are taken out, a small stylesheet is put in, and half a megabyte of unused images and
fonts is removed, so that the folder can be opened from an archive years later. Not for judging.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipelines.contracts.artifacts import ExpectationOutcome
from validation.report.charts import Drawing, Style, panel, spark
from validation.report.pages import environment, within_limit

DOCS_FOLDER = "data_docs"
DETAILS_FOLDER = "details"
NEAR = 0.8
"""What has come so far on the way to its limit is drawn large."""

_FETCHED = (
    (r"<script\b.*?</script>", ""),
    (r"<footer\b.*?</footer>", ""),
    (r"<link\b[^>]*https?://[^>]*>", ""),
    (r"<img\b[^>]*https?://[^>]*>", ""),
    (r"<a\b[^>]*href=\"https?://[^\"]*\"[^>]*>(.*?)</a>", r"\1"),
    (r"url\([^)]*https?://[^)]*\)", ""),
)
"""What of a page is fetched from elsewhere, or runs, and what stands there instead."""


class Line(NamedTuple):
    """A number or distribution, before and now, on a line of the overview."""

    name: str
    told: str  # What was found before and now.
    times_limit: float  # How far it moved, as a multiple of its limit; 0: nothing to compare with.
    is_judged: bool = True  # False: the recipe's bound stands in for a limit that nobody knows yet.
    drawn: Drawing | None = None


class Subject(NamedTuple):
    """What was judged, in the words of the overview."""

    name: str  # such as "snapshot of 2024-05-06"
    if_refused: str  # what may not be done then, a sentence's second half
    facts: Mapping[str, str]  # What is said of it, by terms.
    lines: tuple[Line, ...] = ()
    legend: Mapping[Style, str] = {}  # What the lines' drawings show, by how it is drawn.


def finish_data_docs(
    docs_dir: Path, subject: Subject, outcomes: tuple[ExpectationOutcome, ...]
) -> None:
    """Move Great Expectations' pages to `details/`, take their links out, write the overview.

    Args:
        docs_dir: Folder with the site that Great Expectations built; `index.html` is the overview.
        subject: What was judged.
        outcomes: What was expected and found.
    """
    details = docs_dir / DETAILS_FOLDER
    built = [path for path in docs_dir.iterdir() if path.name != "static"]
    shutil.rmtree(docs_dir / "static", ignore_errors=True)
    details.mkdir()
    for path in built:
        shutil.move(path, details / path.name)
    # The index of Great Expectations is empty without scripts from a CDN.
    validations = details / "validations"
    pages = [
        (page.relative_to(validations).parts[0], page.relative_to(details).as_posix())
        for page in sorted(validations.rglob("*.html"))
    ]
    contents = environment().get_template("data_docs_details.html.j2").render(pages=pages)
    (details / "index.html").write_text(contents, "utf-8")
    styles = environment().get_template("data_docs_details.css").render()
    for page in details.rglob("*.html"):
        page.write_text(make_offline(page.read_text("utf-8"), styles), "utf-8")
    template = environment().get_template("data_docs.html.j2")
    lines = sorted(subject.lines, key=lambda line: -line.times_limit)
    html = within_limit(
        lambda num: template.render(
            subject=subject, outcomes=outcomes, lines=lines, num_listed=num,
            near=NEAR, panel=panel, spark=spark, details=f"{DETAILS_FOLDER}/index.html",
        ),
        len(lines),
    )  # fmt: skip
    (docs_dir / "index.html").write_text(html, "utf-8")


def make_offline(html: str, styles: str) -> str:
    """Return a page without anything that is fetched from elsewhere, and with styles inside."""
    for pattern, instead in _FETCHED:
        html = re.sub(pattern, instead, html, flags=re.DOTALL)
    html = html.replace("<html>", '<html lang="en">', 1)  # so that it is read out in English
    return html.replace("</head>", f"<style>{styles}</style></head>", 1)
