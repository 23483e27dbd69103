"""Whatever a file holds, it is plain values or an error of ours that says where and what."""

from typing import Any

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes.parsing import parse


def told(text: str, is_toml: bool = False) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "here", is_toml)
    assert caught.value.exit_code == 78
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: x\0y\n", "the character '\\x00' is not allowed at line 2; correct"),
        ("a: \x07\n", "the character '\\x07' is not allowed at line 1"),
        ("a: 1\nb: !!int abc\n", "has no tags, and this is !!int at line 2, column 4"),
        ("a: !!set {b}\n", "this is !!set at line 1"),
        ("a: !!python/name:os.getcwd\n", "this is !!python/name:os.getcwd at line 1"),
        ("a: !mine {b: 1}\n", "this is !mine at line 1"),
        ("a:\n  3: x\n", "field '3' is no text in YAML; expected one in quotes at line 2"),
        ("yes: x\n", "field 'yes' is no text"),
        ("~: x\n", "field '~' is no text"),
        ("a: 0b_\n", "'0b_' is no number"),
        (f"a: {'9' * 5000}\n", f"'{'9' * 40}' is no number (Exceeds the limit"),
        (f"a: {'[' * 2000}{']' * 2000}", "it is nested too deep; expected sections"),
        (f"a: {'{b: ' * 2000}1{'}' * 2000}", "it is nested too deep; expected sections"),
        ("a: 1\nb: &c {d: 1}\n", "no anchors (&) and aliases (*), and this is 'c' at line 2"),
        ("a: *b", "no anchors (&) and aliases (*), and this is 'b' at line 1"),
    ],
)
def test_what_yaml_may_not_hold_is_named_with_its_line(text: str, says: str) -> None:
    message = told(text)
    assert message.startswith("recipe here cannot be read as YAML: ")
    assert says in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"a = {'[' * 2000}{']' * 2000}", "cannot be read as TOML: it is nested too deep"),
        (f"a = {'9' * 5000}", "cannot be read as TOML: Exceeds the limit"),
        ("a = 'x\0'", "cannot be read as TOML: Found invalid character '\\x00' (at line 1"),
    ],
)
def test_what_toml_may_not_hold_is_named(text: str, says: str) -> None:
    assert says in told(text, is_toml=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-13-45", {"a": "2026-13-45"}),
        ("a: [2026-01-02, 1e-3, 0x1F, yes, ~, '3', =]", None),
        ("", None),
    ],
)
def test_the_rest_is_plain_values(text: str, value: Any) -> None:
    expected = value or ({"a": ["2026-01-02", 0.001, 31, True, None, "3", "="]} if text else None)
    assert parse(text, "here", is_toml=False) == expected
