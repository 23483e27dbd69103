"""From a mapping to a recipe's value, with messages for people: all that is wrong, at once.

A field is named by its full dotted path, an unknown one with the nearest that there is. Types are
strict: '2' is no number, and neither is true. Not for reading files (`pipelines.recipes.parsing`).
Tested in tests/pipelines/recipes/test_validation.py.
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError

Place = Sequence[str | int]


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
        text = json.dumps(value, default=str)
    except RecursionError:
        raise ConfigurationError(
            f"recipe {origin} is nested too deep; expected sections with fields; take out levels"
        ) from None
    try:
        made = RunConfig.model_validate_json(text, strict=True)
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
    around = _model_at(above)
    beside = [each for each in around.model_fields if each != "source"] if around else []
    near = difflib.get_close_matches(str(name), beside, n=1)
    if near:
        return f"did you mean {dotted((*above, near[0]))}?"
    everywhere: dict[str, str] = {}
    for path in _all_places(RunConfig):
        everywhere.setdefault(path.rpartition(".")[2], path)
    near = difflib.get_close_matches(str(name), everywhere, n=1)
    if near:
        return f"did you mean {everywhere[near[0]]}?"
    return f"expected one of {', '.join(beside)}"


def _meaning(place: Place) -> str:
    """Return what a field is for, in brackets; a section has no such text."""
    *above, name = place
    model = _model_at(above)
    while model is None and above:  # an entry of a list: the list's description says more
        *above, name = above
        model = _model_at(above)
    field = model.model_fields.get(str(name)) if model else None
    text = (field.description or "").rstrip(".") if field else ""
    return f" ({text[0].lower()}{text[1:]})" if text else ""


def _model_at(place: Place) -> type[BaseModel] | None:
    """Return the model whose fields stand at a place of `RunConfig`, or None."""
    model: type[BaseModel] | None = RunConfig
    for part in place:
        if isinstance(part, int):
            continue  # the model of a list's entries was found with the list
        field = model.model_fields.get(part) if model else None
        model = next(iter(_models_in(field.annotation)), None) if field else None
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _all_places(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield the dotted paths of all options of a model, outer ones first."""
    deeper = []
    for name, field in model.model_fields.items():
        path = f"{above}.{name}".lstrip(".")
        if inner := next(iter(_models_in(field.annotation)), None):
            deeper.append((inner, path))
        if path != "source":
            yield path
    for inner, path in deeper:
        yield from _all_places(inner, path)
