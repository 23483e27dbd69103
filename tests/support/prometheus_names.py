"""How Prometheus and VictoriaMetrics name what arrives by OTLP (their default translation).

tests/production/metrics/test_store.py compares this with what a real store makes of it.
"""

import re

from pipelines.metrics.instruments import Instrument

_UNITS = {"s": "_seconds", "By": "_bytes"}


def metric_name(instrument: Instrument) -> str:
    """Return `homefeed_stage_duration_seconds` for `homefeed.stage.duration` in `s`."""
    return label_name(instrument.name) + _UNITS.get(instrument.unit, "")


def label_name(attribute: str) -> str:
    """Return `error_type` for `error.type`."""
    return re.sub(r"\W", "_", attribute)
