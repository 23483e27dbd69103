"""A recipe in a YAML or TOML file: complete, or what differs from the recipe that it extends.

    extends: completejourney      a name of this project's, or another file
    recipe: careful               its name; the file's by default
    training:
      learning_rate: 0.001        sections are merged field by field, lists are taken whole

A file is data: reading it runs nothing of anybody's. So `extends` names no function, and an own
function in `features.numeric` is a name until a snapshot is built. Not for how a text becomes
values (`pipelines.recipes.parsing`). Tested in tests/pipelines/recipes/test_files.py.
"""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes.parsing import parse
from pipelines.recipes.validation import validated

SUFFIXES = (".yaml", ".yml", ".toml")


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
    value = parse(text, uri, is_toml=uri.lower().endswith(".toml"))
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"recipe {uri} holds {type(value).__name__ if text.strip() else 'nothing'}; expected "
            f"fields such as `extends: completejourney`"
        )
    return value


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
