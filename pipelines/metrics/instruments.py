"""Every metric that a stage may send: name, unit, attributes, meaning.

Names and units follow OpenTelemetry's conventions: `s`, `By`, and what is counted in braces. A
stage is a process that lives for minutes and then is gone, so each metric is a gauge: the last
value, nothing to add up. Every store of metrics keeps it as it is, and a rule finds the newest in a
span of time.

The run's id is no attribute: each cycle would begin new series, and a rule that compares a stage
with its former attempts would find none. The log of a stage and its manifest name the run.

Compared with docs/observability.md and with the alert rules by tests.
"""

from typing import NamedTuple

STAGE, RECIPE, MODEL = "homefeed.stage", "homefeed.recipe", "homefeed.model"
OUTCOME, ERROR, RETRYABLE = "homefeed.outcome", "error.type", "homefeed.is_retryable"
VERDICT = "homefeed.verdict"

CYCLE = (RECIPE, MODEL)
ATTEMPT = (STAGE, RECIPE, MODEL, OUTCOME)


class Instrument(NamedTuple):
    """One metric; `attributes` are the only ones that its values may carry."""

    name: str
    unit: str
    attributes: tuple[str, ...]
    description: str


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    value: float
    attributes: dict[str, str | bool]


INSTRUMENTS = (
    Instrument(
        "homefeed.stage.end_time",
        "s",
        (*ATTEMPT, ERROR, RETRYABLE),
        "When the last attempt with this outcome ended, in seconds since 1970 (UTC).",
    ),
    Instrument("homefeed.stage.duration", "s", ATTEMPT, "Wall time of the last attempt."),
    Instrument(
        "homefeed.stage.memory.peak",
        "By",
        ATTEMPT,
        "Largest resident memory of process and children; what they share is counted once.",
    ),
    Instrument(
        "homefeed.stage.memory.limit",
        "By",
        ATTEMPT,
        "Memory that the process may use: the control group's limit, else the machine's memory.",
    ),
    Instrument(
        "homefeed.verdict.state",
        "{verdict}",
        (*CYCLE, VERDICT),
        "1 for the verdict of the last comparison, 0 for the other two.",
    ),
    Instrument(
        "homefeed.comparison.void",
        "{comparison}",
        CYCLE,
        "1 where the last comparison with the champion says nothing, 0 where it is sound.",
    ),
    Instrument(
        "homefeed.champion.unpromoted_cycles",
        "{cycle}",
        (MODEL,),
        "Cycles that were judged since the champion moved last, and promoted nothing.",
    ),
    Instrument(
        "homefeed.champion.as_of",
        "s",
        (MODEL,),
        "as_of of the model that serves, in seconds since 1970 (UTC).",
    ),
)
