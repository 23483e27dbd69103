"""Text of people and data: one line, nothing that steers a terminal, links to pages alone."""

import html
import re

import pytest

from pipelines.plain_text import (
    as_markdown,
    first_lines,
    link_target,
    one_line,
    safe_lines,
    shortened,
)
from support.markdown import as_shown

AS_IT_IS = "at 03:12:05 in file:///w/runs/x and s3://b/x, pkg.recipes:mine"
BREAKS = "\n \r\n \r \v \f \x85 \u2028 \u2029".split(" ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *((f"late{each}  2026 promotion", "late 2026 promotion") for each in BREAKS),
        ("\x1b[2J\x1b[31mgone", "\\x1b[2J\\x1b[31mgone"),
        ("\x9b2Jgone", "\\x9b2Jgone"),  # the same sequence in one character
        ("back\x08\x08here\x07\x00", "back\\x08\\x08here\\x07\\x00"),
        ("\u202egnp.exe", "\\u{202e}gnp.exe"),
        ("a\u2066b\u200fc\u061cd", "a\\u{2066}b\\u{200f}c\\u{61c}d"),
        ("tag\U000e0041", "tag\\u{e0041}"),
        ("half \udce9", "half \\u{dce9}"),
        # What can be seen stays.
        *((each, each) for each in ("", "as it is", "two  spaces", "Größe, 大きさ, می‌خواهم")),
        ("👩‍💻 <b>&amp;</b> $HOME `x`", "👩‍💻 <b>&amp;</b> $HOME `x`"),
    ],
)
def test_a_line_shows_all_of_it_and_does_nothing_else(text: str, shown: str) -> None:
    assert one_line(text) == shown
    assert safe_lines(text) == ("late\n  2026 promotion" if "\n" in text else shown)


def test_lines_stay_lines_and_are_each_made_harmless() -> None:
    assert safe_lines("one:\n  two\x1b\r\nthree\u2028four") == "one:\n  two\\x1b\nthree four"


@pytest.mark.parametrize(
    "text",
    [
        "see https://evil.example/x, HTTP://A.example, ftp://b.example and (www.evil.example)",
        "anna.b@evil.example asked @anna, core:heart:x :thumbs_up:",
        "a < b & c &lt; d &#60; <img src=x> <https://evil.example>",
        "**bold** _it_ [a](javascript:b) # `code` ~~~~ new | line \\*",
        "1. one",
        "- two",
        AS_IT_IS,
    ],
)
def test_markdown_shows_a_text_as_it_is_and_makes_no_link_of_it(text: str) -> None:
    marked = as_markdown(text)
    assert as_shown(marked) == text and (marked == text or text != AS_IT_IS)
    # As the pages of Airflow and MLflow look for them: after escapes and entities are resolved.
    seen = html.unescape(marked.replace("\\", ""))
    links = r"(?i)(?:https?|ftp|dict)://|www\.|[-.\w+]+@[-\w]|(?:^|\s)@\w|:[a-z]\w*:|&(?!amp;|lt;)"
    assert re.findall(links, seen if "&" not in text else marked) == []
    assert "<" not in marked


PAGES = ("https://mlflow.example.com/#/runs", "http://127.0.0.1:5000")
SCRIPTS = ("javascript:", "JavaScript:", " javascript:", "java\nscript:", "vbscript:", "http:")
HARMFUL = (
    *(f"{scheme}alert(1)" for scheme in SCRIPTS),
    *("data:text/html,<script>alert(1)</script>", "http://[broken", "s3://bucket/runs/x", ""),
    "file:///ws/x/verdict.html",
    *("//elsewhere.example.com", "https://example.com/ javascript:"),
)


@pytest.mark.parametrize("uri", [*PAGES, *HARMFUL])
def test_pages_may_be_links_and_nothing_else(uri: str) -> None:
    assert link_target(uri) == (uri if uri in PAGES else "")


def test_a_long_title_keeps_what_it_is_about_and_its_number() -> None:
    title = f"Homefeed retrain: {'very_long_name_' * 40}v4 is worse: -6.25 %"
    short = shortened(title, 80)
    assert len(short) == 80 and short.startswith("Homefeed retrain: very")
    assert short.endswith("v4 is worse: -6.25 %") and short.count("…") == 1
    assert shortened(title, len(title)) == title


@pytest.mark.parametrize(
    ("text", "begins", "ends"),
    [
        (
            "\n".join(f"line {n:02}" for n in range(60)),
            "line 00\nline 01",
            "\n(shortened: the page)",
        ),
        ("x" * 900, "xxxx", "xxxx\n(shortened: the page)"),
        (f"title\n{'x' * 900}\nend", "title\nxxxx", "xxxx\n(shortened: the page)"),
    ],
)
def test_what_does_not_fit_is_left_out_by_lines(text: str, begins: str, ends: str) -> None:
    short = first_lines(text, 300, "the page")
    assert len(short) <= 300 and short.startswith(begins) and short.endswith(ends)
    assert not begins.startswith("line") or len(short.splitlines()[-2]) == 7
    assert first_lines(text, len(text), "the page") == text
