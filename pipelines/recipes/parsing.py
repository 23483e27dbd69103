"""From the text of a YAML or TOML file to numbers, texts, lists and mappings, and to nothing else.

What YAML can say beyond these is refused at the line where it stands: tags, which make objects, and
keys that are no texts. A date is a text. Refused as well is what is nested too deep, or grows too
large by aliases. Not for what the fields of a recipe mean (`pipelines.recipes.validation`).
Tested in tests/pipelines/recipes/test_parsing.py.
"""

import re
import tomllib
from collections.abc import Hashable, Iterable
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from pipelines.contracts.errors import ConfigurationError

FLOAT_TAG = "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
"""Numbers such as 1e-3. Whoever writes YAML for this reader puts such a text in quotes."""
MAX_DEPTH = 40
"""Levels of sections and lists in one another; a recipe has five."""
MAX_VALUES = 100_000
"""Values of a file in which each alias counts as what it stands for."""
_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_NOT_READ = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")


class _Loader(yaml.SafeLoader):
    """The safe loader, which makes less, takes 1e-3 for a number, and refuses fields that repeat.

    YAML 1.1 takes 1e-3 for text because it has no point, and the last of two equal fields in
    silence.
    """

    _depth = 0
    yaml_implicit_resolvers = {
        first: [each for each in resolvers if each[0] not in _NOT_READ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next value's node, where nothing is nested too deep and nothing has a tag."""
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            problem = f"a recipe has no tags, and this is {tag}"
            raise ComposerError(None, None, problem, event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ComposerError(
                None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Any:
        """Return the node of the whole text, whose aliases stand for a bounded number of values."""
        node = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping, in which every field stands once and is a text."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.tag not in _KEYS:
                problem = f"field {key.value!r} is no text in YAML; expected one in quotes"
                raise ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                problem = f"field {key.value!r} stands twice"
                raise ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Return a node's value; what looks like a number and is none is named."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            problem = f"{str(node.value)[:40]!r} is no number ({error})"
            raise ConstructorError(None, None, problem, node.start_mark) from None


_Loader.add_implicit_resolver(FLOAT_TAG, EXPONENT, None)


def parse(text: str, origin: str, is_toml: bool) -> Any:
    """Return what a text says.

    Args:
        text: YAML or TOML.
        origin: Where it was read, for the message.
        is_toml: Which of the two it is.

    Raises:
        ConfigurationError: it cannot be read as such; the message says where.
    """
    value = _parse_toml(text, origin) if is_toml else _parse_yaml(text, origin)
    _require_shallow(value, origin)
    return value


def _parse_yaml(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem, place = f"the character {text[error.position]!r} is not allowed", f"line {line}"
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "one place"
        problem = getattr(error, "problem", None) or str(error)
    raise ConfigurationError(
        f"recipe {origin} cannot be read as YAML: {problem} at {place}; correct that line"
    )


def _parse_toml(text: str, origin: str) -> Any:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # it says the line, where it has one
        raise ConfigurationError(
            f"recipe {origin} cannot be read as TOML: {error}; correct that line"
        ) from None


def _count(node: Any, known: dict[int, int | None]) -> int:
    """Return how many values a node stands for; `known` has None for those that are being counted.

    An alias refers to what stood before it, so no call goes deeper than the text is nested.
    """
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            problem = "this is nested without an end: an alias (*) stands inside its own anchor (&)"
            raise ComposerError(None, None, problem, node.start_mark)
        return count
    known[id(node)] = None
    parts = node.value if isinstance(node.value, list) else []
    inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
    count = 1 + sum(_count(part, known) for part in inner)
    if count > MAX_VALUES:
        problem = f"with its aliases this is more than {MAX_VALUES:,} values"
        raise ComposerError(None, None, problem, node.start_mark)
    known[id(node)] = count
    return count


def _require_shallow(value: Any, origin: str) -> None:
    """Refuse what is nested too deep by aliases, or by a field's dotted name in TOML."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise ConfigurationError(
        f"recipe {origin} is nested deeper than {MAX_DEPTH} levels; expected sections with fields; "
        f"take out a level"
    )


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
