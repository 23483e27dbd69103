"""What in a recipe can never come to a verdict, whatever the event log and the champion are.

A contradiction of fields is refused by the configuration itself. What is asked here is not: old
runs are read by the same classes, and one that was refused by the gate must stay readable. Tested
in tests/pipelines/preconditions/test_recipe_alone.py.
"""

import difflib
from collections.abc import Sequence
from typing import TypeVar

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.snapshot.features.count import contract_problems, function_problems

Refused = TypeVar("Refused", bound=HomefeedError)


def recipe_problems(config: RunConfig) -> list[str]:
    """Return what the recipe asks for that no head and no event log can give, in sentences.

    These are metrics of the gate, and features that are columns of the log's contract.
    """
    from validation.model_gate.target_metric import names_of_metrics, target_metric

    gate, heads = config.model_gate, config.features.heads
    found = []
    try:
        target_metric(gate, heads)
    except ConfigurationError as error:
        found.append(str(error))
    given = names_of_metrics(heads, gate.target_metric)
    for section, limits in (("floors", gate.floors), ("guardrails", gate.guardrails)):
        for limit in limits:
            if limit.metric in given:
                continue
            near = difflib.get_close_matches(limit.metric, given, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            found.append(
                f"model_gate.{section} has a limit on {limit.metric!r}, which no head gives, so "
                f"nothing would ever be promoted; {hint}expected one of {', '.join(given)}"
            )
    return [*found, *contract_problems(config.features.numeric_held)]


def require_sound(config: RunConfig) -> None:
    """Refuse a recipe that cannot come to a verdict.

    Raises:
        ConfigurationError: it asks for what no head or log can give; all is listed.
    """
    if found := recipe_problems(config):
        lead = f"recipe {config.reference} cannot come to a verdict:"
        raise refusal(ConfigurationError, lead, found)


def require_functions(config: RunConfig) -> None:
    """Refuse a recipe whose own functions this process cannot import or call.

    Raises:
        ConfigurationError: all such functions are listed.
    """
    if found := list(function_problems(config.features.numeric_held)):
        lead = f"recipe {config.reference} has features that cannot be computed here:"
        raise refusal(ConfigurationError, lead, found)


def refusal(kind: type[Refused], lead: str, problems: Sequence[str], remedy: str = "") -> Refused:
    """Return an error that lists problems after a lead, and knows them one by one."""
    error = kind(f"{lead}{listed(problems)}{remedy}")
    error.problems = tuple(problems)
    return error


def listed(problems: Sequence[str]) -> str:
    """Return problems as the rest of a message: in the same line, or each in its own."""
    if len(problems) == 1:
        return f" {problems[0]}"
    return "".join(f"\n- {problem}" for problem in problems)
