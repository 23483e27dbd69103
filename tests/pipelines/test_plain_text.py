"""Text of people and data: one line, nothing that steers a terminal, links to pages alone."""

import pytest

from pipelines.plain_text import link_target, one_line, safe_lines

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
    "uri",
    [
        "https://mlflow.example.com/#/runs",
        "http://127.0.0.1:5000",
        "file:///ws/runs/x/verdict.html",
    ],
)
def test_pages_and_files_may_be_links(uri: str) -> None:
    assert link_target(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "s3://bucket/runs/x",
        "//elsewhere.example.com",
        "http:alert(1)",
        "http://[broken",
        "https://example.com/ javascript:",
        "",
    ],
)
def test_nothing_else_may(uri: str) -> None:
    assert link_target(uri) == ""
