"""From the text of a YAML or TOML file to numbers, texts, lists and mappings, and to nothing else.

What YAML can say beyond these is refused at the line where it stands: tags, which make objects,
anchors and aliases, which may grow without bound (`extends` shares values between recipes), and
keys that are no texts. A date is a text. Not for what the fields of a recipe mean
(`pipelines.recipes.validation`). Tested in tests/pipelines/recipes/test_parsing.py.
"""

import re
import tomllib
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from pipelines.contracts.errors import ConfigurationError

FLOAT_TAG = "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
"""Numbers such as 1e-3. Whoever writes YAML for this reader puts such a text in quotes."""
_TEXT = "tag:yaml.org,2002:str"
_NOT_READ = tuple(f"tag:yaml.org,2002:{name}" for name in ("timestamp", "value", "merge"))


class _Loader(yaml.SafeLoader):
    """The safe loader, which makes less, takes 1e-3 for a number, and refuses fields that repeat.

    YAML 1.1 takes 1e-3 for text because it has no point, and the last of two equal fields in
    silence.
    """

    yaml_implicit_resolvers = {
        first: [each for each in resolvers if each[0] not in _NOT_READ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next value's node, where it has no tag and no anchor."""
        event = self.peek_event()
        if (tag := getattr(event, "tag", None)) is not None:
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            problem = f"a recipe has no tags, and this is {tag}"
            raise ComposerError(None, None, problem, event.start_mark)
        if (anchor := getattr(event, "anchor", None)) is not None:
            problem = f"a recipe has no anchors (&) and aliases (*), and this is {anchor!r}"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping, in which every field stands once and is a text."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.tag != _TEXT:
                problem = f"field {key.value!r} is no text in YAML; expected one in quotes"
                raise ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
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
    place = ""
    try:
        return tomllib.loads(text) if is_toml else yaml.load(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        place = f" at line {text.count(chr(10), 0, error.position) + 1}"
        problem = f"the character {text[error.position]!r} is not allowed"
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
    except RecursionError:
        problem = "it is nested too deep; expected sections with fields"
    except ValueError as error:  # TOML says the line, where it has one
        problem = str(error)
    raise ConfigurationError(
        f"recipe {origin} cannot be read as {'TOML' if is_toml else 'YAML'}: {problem}{place}; "
        f"correct that line"
    )
