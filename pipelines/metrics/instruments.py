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

Tested in tests/pipelines/metrics/test_instruments.py, which compares docs/observability.md with
this table, and in tests/docker/test_alert_rules.py, which compares the alert rules with it.
"""

from dataclasses import dataclass
from typing import Literal

STAGE = "homefeed.stage"
RECIPE = "homefeed.recipe"
MODEL = "homefeed.model"
OUTCOME = "homefeed.outcome"
ERROR = "error.type"
RETRYABLE = "homefeed.is_retryable"
CPU_MODE = "cpu.mode"
ROW = "homefeed.row"
DIRECTION = "homefeed.direction"
VERDICT = "homefeed.verdict"

CYCLE = (RECIPE, MODEL)
ATTEMPT = (STAGE, RECIPE, MODEL, OUTCOME)


@dataclass(frozen=True)
class Instrument:
    """One metric; `attributes` are the only ones that its values may carry."""

    name: str
    unit: str
    kind: Literal["gauge", "counter"]
    attributes: tuple[str, ...]
    description: str


STAGE_END_TIME = Instrument(
    *("homefeed.stage.end_time", "s", "gauge", (*ATTEMPT, ERROR, RETRYABLE)),
    "When the last attempt with this outcome ended, in seconds since 1970 (UTC).",
)
STAGE_ATTEMPTS = Instrument(
    *("homefeed.stage.attempts", "{attempt}", "counter", (*ATTEMPT, ERROR, RETRYABLE)),
    "Attempts that ended.",
)
STAGE_ATTEMPT_NUMBER = Instrument(
    *("homefeed.stage.attempt_number", "{attempt}", "gauge", ATTEMPT),
    "How many processes have had the stage of this run, this one included: its lease's number.",
)
STAGE_DURATION = Instrument(
    *("homefeed.stage.duration", "s", "gauge", ATTEMPT),
    "Wall time of the last attempt.",
)
STAGE_CPU_TIME = Instrument(
    *("homefeed.stage.cpu.time", "s", "gauge", (*ATTEMPT, CPU_MODE)),
    "CPU time of the last attempt's process and of its children that have ended.",
)
STAGE_GPU_HELD_TIME = Instrument(
    *("homefeed.stage.gpu.held_time", "s", "gauge", ATTEMPT),
    "Wall time of a training stage times the run's GPUs: how long they were held, busy or not.",
)
STAGE_MEMORY_PEAK = Instrument(
    *("homefeed.stage.memory.peak", "By", "gauge", ATTEMPT),
    "Largest resident memory of process and children; what they share is counted once.",
)
STAGE_MEMORY_LIMIT = Instrument(
    *("homefeed.stage.memory.limit", "By", "gauge", ATTEMPT),
    "Memory that the process may use: the control group's limit, else the machine's memory.",
)
STAGE_ROWS = Instrument(
    *("homefeed.stage.rows", "{row}", "gauge", (*ATTEMPT, ROW, DIRECTION)),
    "Rows that the stage wrote or read, by kind, as its artifact says.",
)
STAGE_BYTES = Instrument(
    *("homefeed.stage.io", "By", "gauge", (*ATTEMPT, DIRECTION)),
    "Bytes of the files that the stage published, and of the snapshot that it was given.",
)
VERDICT_STATE = Instrument(
    *("homefeed.verdict.state", "{verdict}", "gauge", (*CYCLE, VERDICT)),
    "1 for the verdict of the last comparison, 0 for the other two.",
)
VERDICTS = Instrument(
    *("homefeed.verdicts", "{verdict}", "counter", (*CYCLE, VERDICT)),
    "Comparisons that ended with this verdict.",
)
COMPARISON_VOID = Instrument(
    *("homefeed.comparison.void", "{comparison}", "gauge", CYCLE),
    "1 where the last comparison with the champion says nothing, 0 where it is sound.",
)
UNPROMOTED_CYCLES = Instrument(
    *("homefeed.champion.unpromoted_cycles", "{cycle}", "gauge", (MODEL,)),
    "Cycles that were judged since the champion moved last, and promoted nothing.",
)
PROMOTIONS = Instrument(
    *("homefeed.promotions", "{promotion}", "counter", CYCLE),
    "Moves of the champion by a cycle.",
)
CHAMPION_AS_OF = Instrument(
    *("homefeed.champion.as_of", "s", "gauge", (MODEL,)),
    "as_of of the model that serves, in seconds since 1970 (UTC).",
)
CHAMPION_AGE = Instrument(
    *("homefeed.champion.age", "s", "gauge", (MODEL,)),
    "From that as_of to when the value was sent; it does not grow until the next cycle.",
)

INSTRUMENTS = (
    *(STAGE_END_TIME, STAGE_ATTEMPTS, STAGE_ATTEMPT_NUMBER, STAGE_DURATION, STAGE_CPU_TIME),
    *(STAGE_GPU_HELD_TIME, STAGE_MEMORY_PEAK, STAGE_MEMORY_LIMIT, STAGE_ROWS, STAGE_BYTES),
    *(VERDICT_STATE, VERDICTS, COMPARISON_VOID, UNPROMOTED_CYCLES, PROMOTIONS),
    *(CHAMPION_AS_OF, CHAMPION_AGE),
)


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    instrument: Instrument
    value: float
    attributes: dict[str, str | bool]
