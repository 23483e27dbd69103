"""The target metric: which head it belongs to, and which form it has.

The name comes from `model_gate.target_metric` and is written nowhere else. Not for computing it
(`validation.model_gate.comparison`).
"""

from pipelines.contracts.config import TOP_K, Head, ModelGateConfig
from pipelines.contracts.errors import ConfigurationError

SHOWN_FIRST = POPULAR, NEW, DIVERSITY, GINI = tuple(
    f"{name}_at_{TOP_K}" for name in ("popular", "new", "diversity", "gini")
)
"""What a model shows first: shares of popular and of new pins, how unlike each other the pins of a
request are, and how unevenly pins are shown."""


def volume_name(head: str) -> str:
    """Return the name of a head's volume: its actions in the top 3, mean per request."""
    return f"{head}_volume_at_{TOP_K}"


def hits_name(head: str) -> str:
    """Return the name of a head's HIT@3: its actions in the top 3, summed, per user."""
    return f"hit_at_{TOP_K}.{head}"


def names_of_metrics(heads: tuple[Head, ...], target: str) -> tuple[str, ...]:
    """Return every metric of a comparison that a floor or guardrail may name.

    Args:
        heads: The recipe's.
        target: `model_gate.target_metric`; the volume is computed of its head alone.
    """
    found = []
    for head in heads:
        if target in (volume_name(head.name), hits_name(head.name)):
            found.append(volume_name(head.name))
        each = ("log_loss", "calibration_ratio", "auc", "ece")
        found += [hits_name(head.name), *(f"{name}.{head.name}" for name in each)]
    return (*found, *SHOWN_FIRST)


def target_head(config: ModelGateConfig, heads: tuple[Head, ...]) -> Head:
    """Return the head whose actions the configured target metric counts.

    Raises:
        ConfigurationError: no wanted head has a metric of this name. The gate takes more for
            better, so an unwanted head cannot be the target.
    """
    wanted = [head for head in heads if head.is_wanted]
    possible = {name(head.name): head for name in (volume_name, hits_name) for head in wanted}
    if config.target_metric not in possible:
        raise ConfigurationError(
            f"model_gate.target_metric is {config.target_metric!r}, expected one of "
            f"{sorted(possible)}, which the wanted heads of features.heads give; correct the recipe"
        )
    return possible[config.target_metric]
