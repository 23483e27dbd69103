"""Every metric that a stage may send: name, unit, kind, attributes, meaning.

Names and units follow OpenTelemetry's conventions: `s`, `By`, and what is counted in braces. A
stage is a process that lives for minutes and then is gone, which decides the kind of a metric:

- What an attempt used, and how things stand, are *gauges*: the last value, nothing to add up.
  Every store of metrics keeps them as they are, and a rule finds the newest in a span of time.
- What is counted is a *counter* whose value is what this one process adds (delta temporality). A
  sum since the start of the process (cumulative) would be 1 for each process, and a store that
  looks for increases of a sum would find none. Stores that take cumulative sums only drop these
  counters, as VictoriaMetrics does, unless a collector adds them up before (its processor
  `deltatocumulative`). So no alert rule rests on a counter: what rules need is a gauge as well.

The run's id is no attribute: each cycle would begin new series, and a rule that compares a stage
with its former attempts would find none. The log of a stage and its manifest name the run.

Compared with docs/observability.md and with the alert rules by tests.
"""

from typing import Literal, NamedTuple

STAGE, RECIPE, MODEL = "homefeed.stage", "homefeed.recipe", "homefeed.model"
OUTCOME, ERROR, RETRYABLE = "homefeed.outcome", "error.type", "homefeed.is_retryable"
CPU_MODE, ROW, DIRECTION = "cpu.mode", "homefeed.row", "homefeed.direction"
VERDICT = "homefeed.verdict"

CYCLE = (RECIPE, MODEL)
ATTEMPT = (STAGE, RECIPE, MODEL, OUTCOME)


class Instrument(NamedTuple):
    """One metric; `attributes` are the only ones that its values may carry."""

    name: str
    unit: str
    kind: Literal["gauge", "counter"]
    attributes: tuple[str, ...]
    description: str


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    value: float
    attributes: dict[str, str | bool]


_ENDED = (*ATTEMPT, ERROR, RETRYABLE)
INSTRUMENTS = (
    Instrument(
        *("homefeed.stage.end_time", "s", "gauge", _ENDED),
        "When the last attempt with this outcome ended, in seconds since 1970 (UTC).",
    ),
    Instrument("homefeed.stage.attempts", "{attempt}", "counter", _ENDED, "Attempts that ended."),
    Instrument(
        *("homefeed.stage.attempt_number", "{attempt}", "gauge", ATTEMPT),
        "How many processes have had the stage of this run, this one included: its lease's number.",
    ),
    Instrument("homefeed.stage.duration", "s", "gauge", ATTEMPT, "Wall time of the last attempt."),
    Instrument(
        *("homefeed.stage.cpu.time", "s", "gauge", (*ATTEMPT, CPU_MODE)),
        "CPU time of the last attempt's process and of its children that have ended.",
    ),
    Instrument(
        *("homefeed.stage.gpu.held_time", "s", "gauge", ATTEMPT),
        "Wall time of a training stage times the run's GPUs: how long they were held, busy or not.",
    ),
    Instrument(
        *("homefeed.stage.memory.peak", "By", "gauge", ATTEMPT),
        "Largest resident memory of process and children; what they share is counted once.",
    ),
    Instrument(
        *("homefeed.stage.memory.limit", "By", "gauge", ATTEMPT),
        "Memory that the process may use: the control group's limit, else the machine's memory.",
    ),
    Instrument(
        *("homefeed.stage.rows", "{row}", "gauge", (*ATTEMPT, ROW, DIRECTION)),
        "Rows that the stage wrote or read, by kind, as its artifact says.",
    ),
    Instrument(
        *("homefeed.stage.io", "By", "gauge", (*ATTEMPT, DIRECTION)),
        "Bytes of the files that the stage published, and of the snapshot that it was given.",
    ),
    Instrument(
        *("homefeed.verdict.state", "{verdict}", "gauge", (*CYCLE, VERDICT)),
        "1 for the verdict of the last comparison, 0 for the other two.",
    ),
    Instrument(
        *("homefeed.verdicts", "{verdict}", "counter", (*CYCLE, VERDICT)),
        "Comparisons that ended with this verdict.",
    ),
    Instrument(
        *("homefeed.comparison.void", "{comparison}", "gauge", CYCLE),
        "1 where the last comparison with the champion says nothing, 0 where it is sound.",
    ),
    Instrument(
        *("homefeed.champion.unpromoted_cycles", "{cycle}", "gauge", (MODEL,)),
        "Cycles that were judged since the champion moved last, and promoted nothing.",
    ),
    Instrument(
        *("homefeed.promotions", "{promotion}", "counter", CYCLE),
        "Moves of the champion by a cycle.",
    ),
    Instrument(
        *("homefeed.champion.as_of", "s", "gauge", (MODEL,)),
        "as_of of the model that serves, in seconds since 1970 (UTC).",
    ),
    Instrument(
        *("homefeed.champion.age", "s", "gauge", (MODEL,)),
        "From that as_of to when the value was sent; it does not grow until the next cycle.",
    ),
)
