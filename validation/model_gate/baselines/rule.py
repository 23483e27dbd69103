"""What a first champion must show against the simple baselines, and what is noted in every cycle.

Where `model_gate.first_champion_beats` is 'every_baseline', the first champion must beat each
ranking: the whole two-sided interval of the change lies above zero. Against the logistic regression
it must not be worse by more than the margin, in the sense of
`validation.model_gate.policy.rules.is_shown`. Otherwise nothing is held up by them: a baseline that
surely beats the challenger is a warning. Not for measuring them (`measure`).
"""

from statistics import NormalDist

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import BaselineFacts, Interval
from validation.model_gate.findings import Findings, percent, quote_change
from validation.model_gate.policy.rules import Change, Estimate, is_denied, is_shown


def judge_baselines(
    baselines: tuple[BaselineFacts, ...], config: ModelGateConfig, findings: Findings
) -> None:
    """Hold the challenger of a first cycle against every baseline, and note what is odd.

    Args:
        baselines: of this cycle; where all of them must be beaten, none shows nothing.
        config: the margin.
        findings: of the comparison with the best of them, or with the champion.
    """
    is_first = findings.comparison.is_first_cycle and not config.needs_popularity
    if is_first and not baselines:
        findings.missing.append("No simple baseline was measured, and no model serves.")
    for facts in baselines:
        if facts.is_below_random and facts.against_random is not None:
            findings.held.append(
                f"Warning: {_named(facts)} ranks worse than a random order: "
                f"{quote_change(facts.against_random)}. Beating it says little."
            )
        if is_first:
            _judge(facts, config.margin, findings)
        elif facts.change is not None and facts.change.high < 0:
            findings.held.append(f"Warning: {_beats(facts, facts.change)}")


def _judge(facts: BaselineFacts, margin: float, findings: Findings) -> None:
    """Hold the challenger of a first cycle against one baseline."""
    if facts.change is None and facts.kind == "ranking" and facts.difference is not None:
        _judge_by_difference(facts, facts.difference, findings)
        return
    if facts.change is None:
        findings.missing.append(
            f"The challenger could not be held against {_named(facts)}: {facts.note}"
        )
        return
    is_model = facts.kind == "regression"
    allowed = margin if is_model else 0.0
    change = _change_of(facts.change)
    is_good = is_shown(change, allowed) if is_model else facts.change.low > 0
    if is_good:
        findings.held.append(
            f"Against {_named(facts)}: {quote_change(facts.change)}, above the "
            f"{percent(-allowed)} required."
        )
    elif is_denied(change, allowed):
        findings.broken.append(_beats(facts, facts.change))
    else:
        findings.held_back.append(
            f"Against {_named(facts)}: {quote_change(facts.change)}, not surely above the "
            f"{percent(-allowed)} required of a first champion."
        )


def _judge_by_difference(facts: BaselineFacts, difference: Interval, findings: Findings) -> None:
    """Hold the challenger against a ranking whose target is zero in a resample of the users."""
    said = (
        f"Against {_named(facts)}: {difference.value:+.4f} ({difference.confidence * 100:g} % "
        f"interval {difference.low:+.4f} to {difference.high:+.4f}), as a difference, because the "
        f"ranking finds next to nothing"
    )
    if difference.low > 0:
        findings.held.append(f"{said}.")
    elif difference.high < 0:
        findings.broken.append(f"{said}: it beats the challenger.")
    else:
        findings.held_back.append(f"{said}: not surely above zero.")


def _beats(facts: BaselineFacts, change: Interval) -> str:
    return f"{_named(facts, 'T')} beats the challenger: its change is {quote_change(change)}."


def _named(facts: BaselineFacts, first: str = "t") -> str:
    """Return a baseline for people: 'the ranking by newest first'."""
    if facts.kind == "regression":
        return f"{first}he {facts.name}"
    return f"{first}he ranking by {facts.name}"


def _change_of(interval: Interval) -> Change:
    """Return a change whose error is taken from its interval's width."""
    reach = NormalDist().inv_cdf((1 + interval.confidence) / 2)
    alone = Estimate(interval.value, (interval.high - interval.low) / (2 * reach))
    return Change(alone, alone)
