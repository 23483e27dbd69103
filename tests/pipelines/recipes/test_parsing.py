"""Whatever a file holds, it is plain values or an error of ours that says where and what."""

import time
from typing import Any

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes.parsing import MAX_DEPTH, parse


def told(text: str, is_toml: bool = False) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "here", is_toml)
    assert caught.value.exit_code == 78
    return str(caught.value)


def laughs(line: str, last: str) -> str:
    """Return nine anchors, each of which names the one before ten times."""
    names = "abcdefghij"
    return "".join(
        line.format(new=new, inner=",".join([f"*{old}"] * 10))
        for old, new in zip(names, names[1:], strict=False)
    ).join(["a: &a {k: 1}\n", last])


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
        (f"a: {'[' * 2000}{']' * 2000}", f"nested deeper than {MAX_DEPTH} levels at line 1"),
        (f"a: {'{b: ' * 2000}1{'}' * 2000}", f"nested deeper than {MAX_DEPTH} levels at line 1"),
        ("a: &a {b: *a}", "nested without an end: an alias (*) stands inside its own anchor"),
        ("a: &a\n  <<: *a\n", "nested without an end"),
    ],
)
def test_what_yaml_may_not_hold_is_named_with_its_line(text: str, says: str) -> None:
    message = told(text)
    assert message.startswith("recipe here cannot be read as YAML: ")
    assert says in message


@pytest.mark.parametrize("line", ["{new}: &{new} [{inner}]\n", "{new}: &{new} {{<<: [{inner}]}}\n"])
def test_aliases_that_grow_without_bound_are_refused_at_once(line: str) -> None:
    started = time.process_time()
    assert "with its aliases this is more than 100,000 values at line" in told(laughs(line, ""))
    assert time.process_time() - started < 5


def test_a_chain_of_aliases_is_nested_too_deep() -> None:
    chain = [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 3 * MAX_DEPTH)]
    assert f"nested deeper than {MAX_DEPTH} levels" in told("\n".join(["a0: &a0 [1]", *chain]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"a = {'[' * 2000}{']' * 2000}", "cannot be read as TOML: maximum recursion depth"),
        (f"a = {'9' * 5000}", "cannot be read as TOML: Exceeds the limit"),
        ("a = 'x\0'", "cannot be read as TOML: Found invalid character '\\x00' (at line 1"),
        (f"a{'.a' * 2000} = 1", f"is nested deeper than {MAX_DEPTH} levels; expected sections"),
    ],
)
def test_what_toml_may_not_hold_is_named(text: str, says: str) -> None:
    assert says in told(text, is_toml=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &a {b: 1}\nc: {<<: *a, d: *a}", {"a": {"b": 1}, "c": {"b": 1, "d": {"b": 1}}}),
        ("a: 2026-13-45", {"a": "2026-13-45"}),
        ("a: [2026-01-02, 1e-3, 0x1F, yes, ~, '3', =]", None),
        ("", None),
    ],
)
def test_the_rest_is_plain_values(text: str, value: Any) -> None:
    expected = value or ({"a": ["2026-01-02", 0.001, 31, True, None, "3", "="]} if text else None)
    assert parse(text, "here", is_toml=False) == expected
