"""One request in words: its candidates with labels, and what a model would see of its user.

Everything comes from the tables that the kernel makes (`one_user`); nothing is computed again here.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import (
    SPLIT_HOLDOUT,
    categorical_column,
    label_column,
    numeric_column,
)
from pipelines.log_check.one_request.one_user import OneUser, named

ACTIONS_SHOWN = 20


def request_row(built: OneUser, request_id: str) -> int:
    """Return the row of a request in the user's shard; the newest one where no name is given.

    Raises:
        ConfigurationError: the request is in neither window, or the user has none there.
    """
    names = built.tables.requests["request_id"].to_pylist()
    if names and not request_id:
        return len(names) - 1
    if request_id in names:
        return int(names.index(request_id))
    windows = " and ".join(
        f"{name} {window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M}"
        for name, window in built.plan.windows.items()
    )
    what = f"request {request_id!r}" if request_id else "no request of the user"
    raise ConfigurationError(
        f"{what} is in {'no' if request_id else 'a'} window of as_of "
        f"{built.plan.as_of:%Y-%m-%d}; expected {windows}, and rows known before "
        f"as_of; leave --as-of out, or give a later day"
    )


def lines_of(built: OneUser, row: int) -> Iterator[str]:
    """Yield what a model would see of the request in a row, line by line."""
    request = _row(built.tables.requests, row)
    split = "holdout" if request["split"] == SPLIT_HOLDOUT else "training"
    window = built.plan.windows[split]
    yield (
        f"request {request['request_id']} of user {named(request['user_id'], built.user_names)} at "
        f"{_time(request['impressed_at'])}; in the {split} window of as_of "
        f"{built.plan.as_of:%Y-%m-%d}, {window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M}"
        f"; {'a core' if request['is_core'] else 'no core'} user"
    )
    yield from _user_lines(built, request)
    yield from _action_lines(built, request)
    yield from _candidate_lines(built, request)


def value_of(built: OneUser, row: int) -> dict[str, Any]:
    """Return what a model would see of the request in a row, for programs; times in UTC ms."""
    request = _row(built.tables.requests, row)
    timeline, examples = built.tables.timeline, built.tables.examples
    types = built.plan.features.action_types
    start, end = request["timeline_start"], request["timeline_end"]
    first, count = request["first_example"], request["num_examples"]
    actions = [_row(timeline, place) for place in range(end - 1, start - 1, -1)]
    return {
        "as_of": built.plan.as_of,
        "request_id": request["request_id"],
        "user": named(request["user_id"], built.user_names),
        "impressed_at_ms": request["impressed_at"],
        "split": "holdout" if request["split"] == SPLIT_HOLDOUT else "training",
        "is_core": bool(request["is_core"]),
        "actions": [
            {
                "action_type": types[action["action_type_id"] - 1],
                "pin": _pin(built, action["pin_row"]),
                "acted_at_ms": action["acted_at"],
                "known_at_ms": action["known_at"],
            }
            for action in actions
        ],
        "candidates": [
            _candidate(built, _row(examples, place)) for place in range(first, first + count)
        ],
    }


def _candidate(built: OneUser, example: dict[str, Any]) -> dict[str, Any]:
    start = numeric_column("")
    heads = built.plan.features.head_names
    return {
        "position": example["position"],
        "pin": _pin(built, example["pin_row"]),
        "got": [head for head in heads if example[label_column(head)] == 1],
        "numbers": {
            name.removeprefix(start): value
            for name, value in example.items()
            if name.startswith(start)
        },
    }


def _pin(built: OneUser, pin_row: int) -> str:
    return named(built.pins["pin_id"][pin_row].as_py(), built.pin_names)


def _row(table: Any, row: int) -> dict[str, Any]:
    return {name: table[name][row].as_py() for name in table.column_names}


def _user_lines(built: OneUser, request: dict[str, Any]) -> Iterator[str]:
    users, row = built.tables.users, request["user_row"]
    as_of = users["as_of"][row].as_py()
    norm = float(np.linalg.norm(to_numpy(users["embedding"])[row]))
    known = f"as of {_time(as_of)}" if as_of else "none before the request: the user is new"
    codes = _codes(users, row, built.plan.features.categorical_of("users"))
    yield f"user row: {known}; embedding of length {norm:.3f}{codes}"


def _action_lines(built: OneUser, request: dict[str, Any]) -> Iterator[str]:
    timeline = built.tables.timeline
    start, end = request["timeline_start"], request["timeline_end"]
    count, at = end - start, request["impressed_at"]
    shown = min(count, ACTIONS_SHOWN)
    yield f"actions known before it: {count}{f', the newest {shown}' if shown < count else ''}"
    types = built.plan.features.action_types
    for place in range(end - 1, end - 1 - shown, -1):
        action = _row(timeline, place)
        yield (
            f"  {types[action['action_type_id'] - 1]} on pin {_pin(built, action['pin_row'])}, "
            f"{_age(at - action['acted_at'])} before, at {_time(action['acted_at'])}, known at "
            f"{_time(action['known_at'])}"
        )


def _candidate_lines(built: OneUser, request: dict[str, Any]) -> Iterator[str]:
    examples, features = built.tables.examples, built.plan.features
    first, count = request["first_example"], request["num_examples"]
    yield f"candidates: {count}"
    numeric = [name for name in examples.column_names if name.startswith(numeric_column(""))]
    for row in range(first, first + count):
        pin_row = examples["pin_row"][row].as_py()
        got = [
            head for head in features.head_names if examples[label_column(head)][row].as_py() == 1
        ]
        numbers = ", ".join(
            f"{name.removeprefix(numeric_column(''))} {examples[name][row].as_py():.3f}"
            for name in numeric
        )
        codes = _codes(examples, row, features.categorical_of("impressions"))
        codes += _codes(built.pins, pin_row, features.categorical_of("pins"))
        yield (
            f"  position {examples['position'][row].as_py()}: pin {_pin(built, pin_row)}, "
            f"got {' and '.join(got) or 'nothing'}; "
            f"{numbers}{codes}"
        )


def _codes(table: Any, row: int, features: tuple[CategoricalFeature, ...]) -> str:
    said = ""
    for feature in features:
        code = table[categorical_column(feature.name)][row].as_py()
        value = feature.values[code - 1] if code else "a value that is not listed"
        said += f", {feature.name} {value}"
    return said


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"


def _age(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms / 1000:.1f} s"
