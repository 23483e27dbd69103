"""From the text of a YAML or TOML file to a recipe's value: all that is wrong is told at once.

What YAML can say beyond numbers, texts, lists and mappings is refused at the line where it stands:
tags, which make objects, anchors and aliases, which may grow without bound (`extends` shares values
between recipes), and keys that are no texts. A date is a text. A field is named by its full dotted
path, an unknown one with the nearest that there is. Types are strict: '2' is no number, and neither
is true. Not for finding a file (`pipelines.recipes.references`). Tested in
tests/pipelines/recipes/test_reading.py.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError

FLOAT_TAG = "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
"""Numbers such as 1e-3. Whoever writes YAML for this reader puts such a text in quotes."""
_TEXT = "tag:yaml.org,2002:str"
_NOT_READ = tuple(f"tag:yaml.org,2002:{name}" for name in ("timestamp", "value", "merge"))

Place = Sequence[str | int]


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
        event, problem = self.peek_event(), ""
        if (tag := getattr(event, "tag", None)) is not None:
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            problem = f"a recipe has no tags, and this is {tag}"
        elif (anchor := getattr(event, "anchor", None)) is not None:
            problem = f"a recipe has no anchors (&) and aliases (*), and this is {anchor!r}"
        if problem:
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping, in which every field stands once and is a text."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            problem = "stands twice" if key.value in seen else ""
            if key.tag != _TEXT:
                problem = "is no text in YAML; expected one in quotes"
            if problem:
                problem = f"field {key.value!r} {problem}"
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


def validated(value: dict[str, Any], origin: str) -> RunConfig:
    """Return the value of a recipe.

    Args:
        value: The JSON form of a `RunConfig`.
        origin: Where it was read, for the message.

    Raises:
        ConfigurationError: it is not valid; the message has a line for each problem.
    """
    problems = []
    if "source" in value:
        problems.append("source: this is set by who reads the recipe; remove the field")
        value = {name: each for name, each in value.items() if name != "source"}
    try:
        made = RunConfig.model_validate_json(json.dumps(value, default=str), strict=True)
    except RecursionError:
        problems.append("it is nested too deep; expected sections with fields; take out levels")
    except ValidationError as error:
        details = error.errors(include_url=False)
        places = [each["loc"] for each in details]
        for each in details:
            place = each["loc"]
            is_above = any(len(loc) > len(place) and loc[: len(place)] == place for loc in places)
            if each["type"] != "too_short" or not is_above:  # else only its entries are wrong
                problems.append(_problem(each))
    if problems:
        lines = "\n".join(f"- {problem}" for problem in problems)
        raise ConfigurationError(
            f"recipe {origin} is not valid:\n{lines}\n"
            f"Correct the recipe; `homefeed recipe show completejourney` prints a valid one"
        )
    return made


def _problem(detail: Any) -> str:
    """Say what is wrong with one field (`ValidationError.errors()`)."""
    place, kind = detail["loc"], detail["type"]
    path = dotted(place)
    what = detail["msg"].removeprefix("Value error, ")
    if kind == "json_invalid":  # a text with half of a character, as \\ud800 in YAML is
        return f"a text in it cannot be saved, or is nested too deep ({what}); write it anew"
    if kind == "extra_forbidden":
        return f"{path}: there is no such field; {_nearest(place)}"
    if kind == "missing":
        return f"{path} is missing{_meaning(place)}"
    if kind == "value_error":  # our validators name option, value and range
        return what if not path or what.startswith(path) else f"{path}: {what}"
    found = json.dumps(detail["input"], ensure_ascii=False, default=str)
    found = f"{found[:77]}..." if len(found) > 80 else found
    return f"{path} is {found}: {what[0].lower()}{what[1:]}{_meaning(place)}"


def dotted(place: Place) -> str:
    """Return a field's place as people write it: `features.heads[0].name`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).lstrip(".")


def _nearest(place: Place) -> str:
    """Return which field was probably meant, and which ones stand beside it."""
    *above, name = place
    places = dict(_all_places(RunConfig))
    section = dotted([part for part in above if isinstance(part, str)])
    beside = [each.rpartition(".")[2] for each in places if each.rpartition(".")[0] == section]
    if near := difflib.get_close_matches(str(name), beside, n=1):
        return f"did you mean {dotted((*above, near[0]))}?"
    everywhere = {path.rpartition(".")[2]: path for path in reversed(places)}
    if near := difflib.get_close_matches(str(name), everywhere, n=1):
        return f"did you mean {everywhere[near[0]]}?"
    return f"expected one of {', '.join(beside)}"


def _meaning(place: Place) -> str:
    """Return what a field is for, in brackets; a section has no such text.

    Of an entry of a list, the list's description says more.
    """
    places, parts = dict(_all_places(RunConfig)), [part for part in place if isinstance(part, str)]
    while parts and dotted(parts) not in places:
        parts.pop()
    text = places.get(dotted(parts), "")
    return f" ({text[0].lower()}{text[1:]})" if text else ""


def _all_places(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted paths of all options of a model and what they mean, outer ones first."""
    deeper = []
    for name, field in model.model_fields.items():
        path = f"{above}.{name}".lstrip(".")
        if path != "source":
            yield path, (field.description or "").rstrip(".")
        deeper += [(inner, path) for inner in _models_in(field.annotation)][:1]
    for inner, path in deeper:
        yield from _all_places(inner, path)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
