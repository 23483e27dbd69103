"""Reads Markdown as a page shows it, as far as what `as_markdown` writes goes."""

import html
import re

from pipelines.plain_text import WORD_JOINER


def as_shown(markdown: str) -> str:
    """Return the text that a reader sees of a text that was made harmless for Markdown."""
    return html.unescape(re.sub(r"\\(.)", r"\1", markdown)).replace(WORD_JOINER, "")
