"""A recipe in a YAML or TOML file: complete, or what differs from the recipe that it extends.

    extends: completejourney      a name, module:function, or another file
    recipe: careful               its name; the file's by default
    training:
      learning_rate: 0.001        sections are merged field by field, lists are taken whole

Files are data: nothing in them is run, and no object is made but numbers, texts, lists and
mappings. Tested in tests/pipelines/recipes/test_files.py.
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes.validation import validated

SUFFIXES = (".yaml", ".yml", ".toml")
FLOAT_TAG = "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
"""Numbers such as 1e-3. Whoever writes YAML for this reader puts such a text in quotes."""


class _Loader(yaml.SafeLoader):
    """The safe loader, in which 1e-3 is a number and a field that stands twice is an error.

    YAML 1.1 takes 1e-3 for text because it has no point, and the last of two equal fields in
    silence.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, in which every field stands once."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"field {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(FLOAT_TAG, EXPONENT, None)


def read_recipe(uri: str, make_base: Callable[[str], RunConfig]) -> RunConfig:
    """Return the value of a file's recipe.

    Args:
        uri: The file.
        make_base: Returns the value of what the file extends.

    Raises:
        ConfigurationError: there is no such file, it cannot be read as YAML or TOML, or what it
            says is no valid recipe.
        TransientStorageError: the storage failed.
    """
    value = _read(uri)
    base = value.pop("extends", None)
    name = unquote(PurePosixPath(urlsplit(uri).path).stem)
    if base is None:
        return validated({"recipe": name} | value, uri)
    if not isinstance(base, str):
        raise ConfigurationError(
            f"recipe {uri}: extends is {base!r}; expected the name or reference of one recipe"
        )
    below = make_base(base).model_dump(mode="json", exclude={"source"})
    return validated(_merged(below, {"recipe": name} | value), uri)


def _read(uri: str) -> dict[str, Any]:
    from pipelines import storage  # it imports pyarrow, and the DAG file imports this module

    try:
        text = storage.read_bytes(uri).decode()
    except FileNotFoundError:
        raise ConfigurationError(
            f"recipe {uri}: there is no such file; expected one that the process which runs "
            f"`resolve_run` can read (in Airflow, the worker); correct the path, or put the file "
            f"there"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"recipe {uri} is no text in UTF-8 ({error}); save it as such"
        ) from None
    value = _parse_toml(uri, text) if uri.lower().endswith(".toml") else _parse_yaml(uri, text)
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"recipe {uri} holds {type(value).__name__ if text.strip() else 'nothing'}; expected "
            f"fields such as `extends: completejourney`"
        )
    return value


def _parse_yaml(uri: str, text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "one place"
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigurationError(
            f"recipe {uri} cannot be read as YAML: {problem} at {place}; correct that line"
        ) from None
    finally:
        loader.dispose()


def _parse_toml(uri: str, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # it says the line
        raise ConfigurationError(
            f"recipe {uri} cannot be read as TOML: {error}; correct that line"
        ) from None


def _merged(below: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping with another's values laid over it; mappings are merged, lists are not."""
    found = dict(below)
    for name, value in over.items():
        under = found.get(name)
        if isinstance(under, dict) and isinstance(value, dict):
            found[name] = _merged(under, value)
        else:
            found[name] = value
    return found
