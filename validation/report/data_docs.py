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
from validation.report.pages import environment

DOCS_FOLDER = "data_docs"
DETAILS_FOLDER = "details"

_FETCHED = (
    (r"<script\b.*?</script>", ""),
    (r"<footer\b.*?</footer>", ""),
    (r"<link\b[^>]*https?://[^>]*>", ""),
    (r"<img\b[^>]*https?://[^>]*>", ""),
    (r"<a\b[^>]*href=\"https?://[^\"]*\"[^>]*>(.*?)</a>", r"\1"),
    (r"url\([^)]*https?://[^)]*\)", ""),
)
"""What of a page is fetched from elsewhere, or runs, and what stands there instead."""


class Subject(NamedTuple):
    """What was judged, in the words of the overview."""

    name: str  # such as "snapshot of 2024-05-06"
    if_refused: str  # what may not be done then, a sentence's second half
    facts: Mapping[str, str]  # What is said of it, by terms.


def finish_data_docs(
    docs_dir: Path, subject: Subject, outcomes: tuple[ExpectationOutcome, ...]
) -> Path:
    """Move Great Expectations' pages to `details/`, take their links out, write the overview.

    Args:
        docs_dir: Folder with the site that Great Expectations built.
        subject: What was judged.
        outcomes: What was expected and found.

    Returns:
        The overview, `<docs_dir>/index.html`.
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
    failed = [outcome for outcome in outcomes if not outcome.is_met]
    failed.sort(key=lambda outcome: not outcome.stops_the_cycle)
    not_judged = [outcome for outcome in outcomes if not outcome.is_judged]
    met = [outcome for outcome in outcomes if outcome.is_met and outcome.is_judged]
    template = environment().get_template("data_docs.html.j2")
    html = template.render(
        subject=subject,
        # Failures first, then the others in the order of the checks.
        groups=(("Not met", failed), ("Met", met), ("Not judged", not_judged)),
        num_critical=sum(o.stops_the_cycle for o in failed),
        num_warnings=sum(not o.stops_the_cycle for o in failed),
        num_met=len(met),
        details=f"{DETAILS_FOLDER}/index.html",
    )
    overview = docs_dir / "index.html"
    overview.write_text(html, "utf-8")
    return overview


def make_offline(html: str, styles: str) -> str:
    """Return a page without anything that is fetched from elsewhere, and with styles inside."""
    for pattern, instead in _FETCHED:
        html = re.sub(pattern, instead, html, flags=re.DOTALL)
    html = html.replace("<html>", '<html lang="en">', 1)  # so that it is read out in English
    return html.replace("</head>", f"<style>{styles}</style></head>", 1)
