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

FORGED = "late\n2026-01-05T00:00:00Z  promotion  homefeed_ranker v9"


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_no_line_break_survives(line_break: str) -> None:
    assert one_line(f"late{line_break}  promotion") == "late promotion"
    assert len(one_line(f"a{line_break}b").splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b[31mgone", "\\x1b[2J\\x1b[31mgone"),
        ("\x9b2Jgone", "\\x9b2Jgone"),  # the same sequence in one character
        ("back\x08\x08here\x07\x00", "back\\x08\\x08here\\x07\\x00"),
        ("\u202egnp.exe", "\\u{202e}gnp.exe"),
        ("a\u2066b\u200fc\u061cd", "a\\u{2066}b\\u{200f}c\\u{61c}d"),
        ("tag\U000e0041", "tag\\u{e0041}"),
        ("half \udce9", "half \\u{dce9}"),
    ],
)
def test_what_cannot_be_seen_is_written_as_its_number(text: str, shown: str) -> None:
    assert one_line(text) == safe_lines(text) == shown


@pytest.mark.parametrize(
    "text", ["", "as it is", "two  spaces", "Größe, 大きさ, می‌خواهم", "👩‍💻 <b>&amp;</b> $HOME `x`"]
)
def test_what_can_be_seen_stays(text: str) -> None:
    assert one_line(text) == safe_lines(text) == text


def test_lines_stay_lines_and_are_each_made_harmless() -> None:
    assert safe_lines("one:\n  two\x1b\r\nthree\u2028four") == "one:\n  two\\x1b\nthree four"
    assert one_line(FORGED).startswith("late 2026")


@pytest.mark.parametrize(
    "text",
    [
        "see https://evil.example/x, HTTP://A.example, ftp://b.example and (www.evil.example)",
        "anna.b@evil.example asked @anna, core:heart:x :thumbs_up:",
        "a < b & c &lt; d &#60; <img src=x> <https://evil.example>",
        "**bold** _it_ [a](javascript:b) # `code` ~~~~ new | line \\*",
        "1. one",
        "- two",
        "at 03:12:05 in file:///w/runs/x and s3://b/x: pkg.recipes:mine",
    ],
)
def test_markdown_shows_a_text_as_it_is_and_makes_no_link_of_it(text: str) -> None:
    marked = as_markdown(text)
    assert as_shown(marked) == text
    # As the pages of Airflow and MLflow look for them: after escapes and entities are resolved.
    seen = html.unescape(marked.replace("\\", ""))
    links = r"(?i)(?:https?|ftp|dict)://|www\.|[-.\w+]+@[-\w]|(?:^|\s)@\w|:[a-z]\w*:|&(?!amp;|lt;)"
    assert re.findall(links, seen if "&" not in text else marked) == []
    assert "<" not in marked


def test_markdown_leaves_what_a_person_may_copy() -> None:
    text = "file:///w/runs/x at 03:12:05, s3://b/x, pkg.recipes:mine"
    assert as_markdown(text) == text


PAGES = ("https://mlflow.example.com/#/runs", "http://127.0.0.1:5000", "file:///ws/x/verdict.html")
HARMFUL = (
    *(
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
    ),
    *("data:text/html,<script>alert(1)</script>", "vbscript:x", "http:alert(1)", "http://[broken"),
    *("s3://bucket/runs/x", "//elsewhere.example.com", "https://example.com/ javascript:", ""),
)


@pytest.mark.parametrize("uri", [*PAGES, *HARMFUL])
def test_pages_and_files_may_be_links_and_nothing_else(uri: str) -> None:
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
        ("\n".join(f"line {n:02}" for n in range(60)), "line 00\nline 01", "more lines: the page)"),
        ("x" * 900, "xxxx", "xxxx\n(shortened: the page)"),
        (f"title\n{'x' * 900}\nend", "title\nxxxx", "xxxx\n(1 more lines: the page)"),
    ],
)
def test_what_does_not_fit_is_left_out_by_lines_and_counted(
    text: str, begins: str, ends: str
) -> None:
    short = first_lines(text, 300, "the page")
    assert len(short) <= 300 and short.startswith(begins) and short.endswith(ends)
    shown = [line for line in short.splitlines() if line.startswith("line ")]
    assert not shown or f"({60 - len(shown)} more lines" in short
    assert first_lines(text, len(text), "the page") == text
