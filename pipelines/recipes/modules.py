"""A recipe that is somebody's own function, found by its import path.

The function runs in this process with its rights, so whoever may name a recipe may run what is
installed beside this project. Not for what its value means (`pipelines.recipes.validation`). Tested
in tests/pipelines/recipes/test_modules.py.
"""

import importlib
import inspect
import sys
from typing import Any

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.recipes.validation import validated


def call_recipe(module_name: str, function_name: str) -> RunConfig:
    """Import a module, call its function without arguments and return the validated value.

    The value goes through its JSON form, as it will when it is saved with the run. So what a
    function has put past the validators is refused here, and no class of the module is left in it.

    Raises:
        ConfigurationError: the module cannot be imported here, lacks the function or raises; the
            function needs arguments, raises, or returns something else; or the value is not valid.
    """
    reference = f"{module_name}:{function_name}"
    function = _find(_import(module_name, reference), function_name, reference)
    try:
        value = function()
    except HomefeedError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        raise ConfigurationError(
            f"recipe {reference} raised {type(error).__name__}: {error}; expected that the "
            f"function returns a RunConfig; correct the function"
        ) from error
    if not isinstance(value, RunConfig):
        raise ConfigurationError(
            f"recipe {reference} returned {_short(value)}; expected a RunConfig "
            f"(pipelines.contracts.config), as the functions of pipelines.recipes return; correct "
            f"the function"
        )
    dumped = value.model_dump(mode="json", warnings=False, fallback=str, exclude={"source"})
    return validated(dumped, reference)


def _import(module_name: str, reference: str) -> Any:
    importlib.invalidate_caches()  # a module that was written a moment ago is found too
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        is_itself = error.name and f"{module_name}.".startswith(f"{error.name}.")
        if not is_itself:
            raise _raised(reference, module_name, error) from error
        raise ConfigurationError(
            f"recipe {reference}: {error}; expected a module that this process can import "
            f"({sys.executable}). A recipe is imported where `resolve_run` runs: in Airflow that "
            f"is the worker, not the machine on which the run was triggered. Install the package "
            f"that holds the module into that environment or image (pip install), put its folder "
            f"on that process's PYTHONPATH, or name a YAML or TOML file that the process can read"
        ) from error
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        raise _raised(reference, module_name, error) from error


def _raised(reference: str, module_name: str, error: BaseException) -> ConfigurationError:
    return ConfigurationError(
        f"recipe {reference}: importing {module_name} raised {type(error).__name__}: {error}; "
        f"expected a module that imports without an error; correct the module, or install what it "
        f"needs where `resolve_run` runs"
    )


def _find(module: Any, function_name: str, reference: str) -> Any:
    if not hasattr(module, function_name):
        there = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigurationError(
            f"recipe {reference}: {module.__name__} has no {function_name!r}; expected one of its "
            f"functions, {', '.join(sorted(there)) or 'of which it has none'}; correct the "
            f"reference"
        )
    function = getattr(module, function_name)
    if not callable(function):
        raise ConfigurationError(
            f"recipe {reference} is {_short(function)}; expected a function that returns a "
            f"RunConfig; correct the reference"
        )
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:  # something that is not written in Python
        raise ConfigurationError(
            f"recipe {reference} does not say which arguments it takes ({error}); expected a "
            f"function in Python that is called without any and returns a RunConfig; correct the "
            f"reference"
        ) from error
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ConfigurationError(
            f"recipe {reference} needs arguments: {', '.join(needed)}; expected a function that is "
            f"called without any; give them defaults, or write a function that fills them in"
        )
    return function


def _short(value: object) -> str:
    text = repr(value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(value).__name__})"
