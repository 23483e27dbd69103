"""Proposes a recipe for an event log, from what the log's own days say; a person edits it.

All is measured before the holdout of the first cycle: nothing is chosen on the days that a model is
judged on. Not for whether the log is right (`measuring`).
"""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from jinja2 import Template

from pipelines import storage
from pipelines.contracts.config import Head, NumericFeature, RelativeLimit, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.reasons import Interval
from pipelines.contracts.schemas import EVENT_LOG_TABLES, SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.contracts.time import DAY_MS, HOUR_MS, to_ms
from pipelines.event_log.completeness import completeness
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.reader import open_file
from pipelines.recipes import completejourney
from pipelines.snapshot.build import build_of
from pipelines.snapshot.plan import plan_of

TEMPLATE = Path(__file__).parent / "templates" / "recipe.yaml.txt"
TRIED = ("similarity_decayed", "similarity_best", "since_last_touch_of_pin", "pin_popularity_slope")
"""Numbers that a simple ranking does not need, and that stay where they surely help."""
UNWANTED = ("hide", "dislike", "skip", "report", "block", "return", "remove", "unlike", "unfollow")
"""In the name of an action type, a word for what is better if there is less of it."""
LABEL_HOURS = (24, 72, 168)
MIN_LABELS = 50
"""Fewer in the days that are measured: the head is left out."""
WANTED_CANDIDATES = 200_000
"""More candidates for training are wanted as long as the log has them."""
MIN_STEPS, MIN_BATCH = 200, 64
"""Steps of an epoch; fewer than 100 of 512 candidates lost to the regression on small logs."""
_KEYS = ("user_id", "pin_id", "request_id")
_MAX_EXAMPLES = 2_000_000
_MOST_DAYS, _USUAL_DAYS, _RECENT = 90, 14, timedelta(days=28)
_FOUND = f"""
CREATE TABLE found AS
SELECT a.action_type, a.acted_at - i.impressed_at AS waited, a.request_id IS NOT NULL AS is_named
FROM actions a LEFT JOIN impressions i ON a.user_id = i.user_id AND a.pin_id = i.pin_id
AND coalesce(a.request_id = i.request_id, a.acted_at - i.impressed_at BETWEEN 0 AND {DAY_MS})
"""
_TYPES = """
SELECT action_type FROM found GROUP BY 1 ORDER BY count(waited) DESC, count(*) DESC, 1 LIMIT 127
"""
_DELAY = f"SELECT quantile_cont(waited, 0.99) / {HOUR_MS} FROM found WHERE is_named"


def propose(location: str, name: str = "mine") -> str:
    """Return a recipe for an event log as YAML, with the reason of each line.

    Raises:
        DataContractError: there is no log, or it has too few days, or no labels in them.
    """
    from validation.model_gate.sizing import needed_by_log

    uri = storage.to_uri(location)
    event_log = open_event_log(uri)
    first, _ = event_log.span("impressions")
    as_of = completeness(event_log).as_of
    last = (as_of - timedelta(days=1)).date()
    types, hours, delay = _actions_of(event_log, as_of)
    num_days, wait = (last - first).days + 1, hours // 24
    usable = num_days - 2 * wait  # The label window and the embargo have no examples.
    at_most = min(_RECENT.days, max(1, usable // 3))
    measured = min(_RECENT.days, usable - at_most)
    tried = max(1, min(7, measured // 4))
    if measured - tried - wait < 1:
        raise DataContractError(
            f"the event log at {uri} has impressions of {num_days} days, {first} to {last}; a "
            f"recipe is proposed from {3 * wait + 4} or more; bring more days"
        )
    draft = _draft(event_log, types, hours, measured - tried - wait, tried)
    found = _measured(draft, as_of - timedelta(days=at_most + wait), uri)
    margin, users, actions = draft.model_gate.margin, found["users"], found["heads"][0][1]
    needed = needed_by_log(users, tried, actions, margin)
    holdout = min(max(7, needed.days if needed else 0), at_most)
    reached = needed_by_log(users, holdout, actions * holdout // tried, margin)
    days = min(max(_USUAL_DAYS, WANTED_CANDIDATES // found["candidates"]), _MOST_DAYS)
    # What is counted over 28 days needs them before the training window.
    days = min(days, max(_USUAL_DAYS, usable - holdout - _RECENT.days), usable - holdout)
    largest = 1 << (days * found["candidates"] // MIN_STEPS).bit_length() >> 1  # a power of two
    batch = min(draft.training.batch_size, max(MIN_BATCH, largest))
    template = Template(TEMPLATE.read_text("utf-8"), trim_blocks=True, lstrip_blocks=True)
    return template.render(
        {**found, "uri": uri, "as_of": as_of, "name": name, "tried": tried, "delay": delay}
        | {"needed": needed, "reached": reached, "draft": draft, "hours": hours}
        | {"holdout_days": holdout, "training_days": days, "batch_size": batch}
    )


def _actions_of(event_log: EventLog, as_of: datetime) -> tuple[tuple[str, ...], int, float | None]:
    """Return the action types, the label window, and the hours until 99 % have acted."""
    recent = (to_ms(each) for each in (as_of - _RECENT, as_of))
    actions, shown = event_log.files_of("actions"), event_log.files_between("impressions", *recent)
    with duckdb.connect() as database:
        for files, columns in ((actions, ("action_type", "acted_at")), (shown, ("impressed_at",))):
            fields = EVENT_LOG_TABLES[files[0].table]
            schema = pa.schema([fields.field(c).with_nullable(True) for c in (*_KEYS, *columns)])
            parts = [open_file(event_log, file).replace_schema(schema) for file in files]
            database.register(files[0].table, ds.dataset(parts))
        database.execute(_FOUND)
        types = tuple(name for (name,) in database.execute(_TYPES).fetchall())
        [(delay,)] = database.execute(_DELAY).fetchall()
    hours = next((each for each in LABEL_HOURS if (delay or 0) <= each), LABEL_HOURS[-1])
    return types, hours, delay


def _draft(
    event_log: EventLog, types: tuple[str, ...], hours: int, training: int, holdout: int
) -> RunConfig:
    """Return a recipe with a head for each type and all numbers, to be measured."""
    pins = open_file(event_log, event_log.files_of("pins")[0])
    version = pins.head(1)["embedding_version"][0].as_py()
    base = completejourney()
    heads = tuple(
        Head(name=each, action_type=each, utility_weight=1.0, is_wanted=not _sounds_unwanted(each))
        for each in sorted(types, key=_sounds_unwanted)
    )
    rails = tuple(
        RelativeLimit(metric=f"hit_at_3.{head.name}", max_increase=0.1)
        for head in heads
        if not head.is_wanted
    )
    windows = {"label_window_hours": hours, "embargo_days": hours // 24, "training_days": training}
    changed: dict[str, dict[str, Any]] = {
        "features": {
            "action_types": types,
            "heads": heads,
            "categorical": (),
            "numeric": tuple(NumericFeature(name=each) for each in TRIED),
        },
        "snapshot": {**windows, "holdout_days": holdout, "embedding_version": version},
        "model_gate": {"target_metric": f"hit_at_3.{heads[0].name}", "guardrails": rails},
    }
    sections = {
        section: getattr(base, section).model_copy(update=values)
        for section, values in changed.items()
    }
    return base.model_copy(update=sections)


def _sounds_unwanted(action_type: str) -> bool:
    return any(word in action_type.lower() for word in UNWANTED)


def _measured(draft: RunConfig, as_of: datetime, uri: str) -> dict[str, Any]:
    """Return what the simple rankings and the numbers are worth, and how much was measured."""
    from training.data.reader import load_rows
    from validation.model_gate.baselines import RANDOM, REGRESSION, lacking, measure, regression

    with storage.scratch_folder(own_temporary_folder("scratch").as_uri()) as scratch:
        snapshot = build_of(plan_of(draft, as_of), uri, (scratch / "snapshots").as_uri())
        training, rows = (
            load_rows(snapshot, storage.local_path(snapshot.uri), split, _MAX_EXAMPLES)
            for split in (SPLIT_TRAINING, SPLIT_HOLDOUT)
        )
    head = draft.features.heads[0].name
    own = {name for each in draft.features.numeric for name in each.inputs}
    usual = sorted(set(rows.numeric) - own)
    asked, known = (
        replace(each, numeric={name: each.numeric[name] for name in usual})
        for each in (rows, training)
    )
    found = measure(asked, known, np.zeros(len(rows.request_index)), draft)
    told = draft.features.model_copy(update={"numeric": ()})
    by_kind = sorted(reversed(found.facts), key=lambda each: each.kind == "ranking")
    numbers = {name: each for each in by_kind for name in lacking(each.name, told)}
    helps, others = dict[str, Interval](), dict[str, Interval]()
    for feature in draft.features.numeric if REGRESSION in found.scores else ():
        score = regression(rows, training, head, [*usual, *feature.inputs])
        change = measure(asked, known, score, draft).best(REGRESSION).change
        if change is not None:
            (helps if change.low > 0 else others)[feature.name] = change
    labels = [(each, int(rows.labels[each.name].sum())) for each in draft.features.heads]
    return {
        "best": found.facts[0],
        "chance": found.best(RANDOM),
        "numbers": numbers,
        "helps": helps,
        "others": others,
        "heads": [pair for n, pair in enumerate(labels) if n == 0 or pair[1] >= MIN_LABELS],
        "users": len(np.unique(rows.user_id)),
        "candidates": max(1, len(training.request_index) // draft.snapshot.training_days),
        "until": snapshot.holdout.end,
    }
