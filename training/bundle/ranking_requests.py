"""Ranking requests as a server gets them: read by name, scored in one pass, answered one by one.

    request_id    text                   user         {embedding: [E]}; zeros if it is left out
    deadline_ms   number, or left out    actions      newest first; columns of one length:
    requested_at  ms since 1970 at which              action_type, pin_id, embedding, age_ms
                  ages were counted      candidates   columns of one length: pin_id, embedding, and
                                                      a column or one value for each feature

For the log of what was served: user.id, which is asked for where there is one; surface,
is_exploration, candidates.propensity, as the log's columns are. Of numeric features null says "not
known" where a feature may be missing. A categorical value that the recipe does not list counts as
unknown, as in training. Not for what answers when (`pipelines.serving`). Tested in
tests/training/bundle/test_ranking_requests.py.

Letters: R requests, C candidates, S actions of a request, E pin embedding, H heads.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pydantic_core import from_json

from pipelines.contracts.config import flag_name
from pipelines.contracts.errors import DataContractError
from training.bundle.files import BundleConfig, Predictor
from training.bundle.score_split import ranking_score
from training.data.batches import Batch, for_scoring

MAX_CANDIDATES = 1_000
"""Of one request; more would hold up the others for long."""
FIELDS = (
    "request_id", "deadline_ms", "requested_at", "surface", "is_exploration", "user", "actions",
    "candidates",
)  # fmt: skip
ACTION_COLUMNS = ("action_type", "pin_id", "embedding", "age_ms")
_FAR_MS = 1 << 53
_LEAST_CHANCE = 1e-30
"""A smaller number could be 0 as float32, which the log has."""
_ID_BITS, _LONGEST = 63, 200
"""Of an integer without its sign, and characters of a text."""
_MOST_APART_MS = 600_000
"""Between a client's clock and the server's: the log would keep a wrong time."""
MARKS = ("actions", "pins of actions", "ages", "embeddings", "features")
"""What a candidate is ranked by, in the order of its marks."""
MARK_LENGTH = 4


class RequestRefusedError(DataContractError):
    """A request is not what the model takes; the message names each field."""


class Shown(NamedTuple):
    """What a log keeps of a request besides its pins."""

    user_id: int | str | None
    surface: str
    is_exploration: bool
    propensity: list[float | None] | None  # of each candidate; None: of none
    requested_at: int | None = None  # ms since 1970; None: when the server got it


@dataclass(frozen=True)
class Decoded:
    """One request, ready to be scored beside others."""

    request_id: str
    deadline_ms: float | None
    pin_ids: Sequence[Any]  # (C,) as they were given
    arrays: Mapping[str, np.ndarray]  # by the name of a model input, without the axis of requests
    shown: Shown = Shown(None, "homefeed", False, None)

    @property
    def num_candidates(self) -> int:
        """How many candidates it has."""
        return len(self.pin_ids)


class Ranked(NamedTuple):
    """An answer: what the model says of each candidate, and in which order they go."""

    probabilities: dict[str, np.ndarray]  # by head, (C,), calibrated
    utility: np.ndarray  # (C,) sum over heads of weight times probability
    order: np.ndarray  # (C,) places of the candidates, the best first

    @property
    def trouble(self) -> str:
        """Why this is no answer; '' where it is one."""
        if np.isfinite(self.utility).all():
            return ""
        return (
            "a number of the request is too large: the model computes no score from it; expected "
            "numbers like those of its training"
        )


def of_json(body: bytes) -> list[Any]:
    """Return the requests of a JSON body: {"requests": [...]}, or one request.

    Raises:
        RequestRefusedError: it is no JSON, or holds no request.
    """
    try:
        found = from_json(body)  # A quarter of the time of Python's own parser.
    except ValueError as error:
        raise RequestRefusedError(f"the body is no JSON: {str(error)[:200]}") from None
    requests = found.get("requests", [found]) if isinstance(found, dict) else found
    if not isinstance(requests, list) or not requests:
        raise RequestRefusedError(
            "the body has no requests; expected {'requests': [...]}, or one request"
        )
    return requests


def of_arrow(body: bytes) -> list[Any]:
    """Return the requests of an Arrow IPC stream: a row each, columns as in JSON.

    Raises:
        RequestRefusedError: it is no such stream, or has no row.
    """
    try:
        rows = pa.ipc.open_stream(body).read_all()
        rows.validate(full=True)
        columns = {name: rows[name] for name in rows.column_names}
        wide = [{name: _plain(of[row]) for name, of in columns.items()} for row in range(len(rows))]
        found = [{name: v for name, v in each.items() if v is not None} for each in wide]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestRefusedError(f"the body is no Arrow stream: {str(error)[:200]}") from None
    if not found:
        raise RequestRefusedError("the body has no requests; expected a row for each")
    return found


def _plain(value: pa.Scalar) -> Any:
    """Return a value of Arrow as numpy or Python have it; what is null was left out."""
    if isinstance(value, pa.StructScalar):
        known = {each.name: _plain(value[each.name]) for each in value.type}
        return {name: each for name, each in known.items() if each is not None} or None
    if not isinstance(value, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
        return value.as_py()
    values = value.values
    if values is None:
        return None
    if pa.types.is_nested(values.type) and pa.types.is_floating(values.type.value_type):
        width, numbers = len(values[0]) if len(values) else 0, values.flatten()
        if values.null_count == 0 and len(numbers) == width * len(values):
            return numbers.to_numpy(zero_copy_only=False).reshape(len(values), width)
        return values.to_pylist()
    is_plain = pa.types.is_primitive(values.type) and values.null_count == 0
    return values.to_numpy(zero_copy_only=False) if is_plain else values.to_pylist()


@dataclass
class Decoder:
    """Reads requests for one bundle.

    Attributes:
        config: The bundle's.
        kinds: By 'user_id' and 'pin_id', the kind of id that the log of what is served has:
            'integer' or 'string'. Empty where nothing is logged; then any id will do.
        now_ms: The server's clock, ms since 1970, where something is logged.
    """

    config: BundleConfig
    kinds: Mapping[str, str] = field(default_factory=dict)
    now_ms: int = 0
    _problems: list[str] = field(default_factory=list)

    def decode(self, given: Any) -> Decoded:
        """Return one request's arrays.

        Raises:
            RequestRefusedError: something is missing, too long, of another kind or unknown; the
                message names all of it.
        """
        self._problems = []
        if not isinstance(given, Mapping):
            raise RequestRefusedError(f"a request is {_kind(given)}; expected an object")
        self._unknown("", given, FIELDS)
        request_id, deadline_ms = given.get("request_id"), given.get("deadline_ms")
        self._id("request_id", request_id, "string")
        is_number = isinstance(deadline_ms, int | float) and not isinstance(deadline_ms, bool)
        if deadline_ms is not None and not (is_number and 0 < deadline_ms <= 1e9):
            self._say("deadline_ms", _kind(deadline_ms), "milliseconds, more than 0")
        keys: dict[Any, int] = {}
        arrays = self._actions(self._columns("actions", given.get("actions", {})), keys)
        user = self._columns("user", given.get("user", {}))
        self._unknown("user.", user, ("embedding", "id"))
        width = self.config.embedding_dim
        arrays["users_RE"] = np.zeros(width, np.float32)
        if "embedding" in user:
            arrays["users_RE"] = self._embeddings("user.embedding", [user["embedding"]], 1)[0]
        candidates = self._columns("candidates", given.get("candidates", {}))
        arrays |= self._candidates(candidates, keys)
        pin_ids = candidates.get("pin_id", ())
        pin_ids = pin_ids.tolist() if isinstance(pin_ids, np.ndarray) else pin_ids
        shown = self._shown(given, user.get("id"), pin_ids, candidates.get("propensity"))
        if self._problems:
            raise RequestRefusedError("; ".join(self._problems))
        return Decoded(str(request_id), deadline_ms, list(pin_ids), arrays, shown)

    def _shown(self, given: Any, user_id: Any, pin_ids: Any, chances: Any) -> Shown:
        """Return what the log asks for; ids are of the log's kind."""
        surface, is_exploration = given.get("surface", "homefeed"), given.get("is_exploration")
        self._id("surface", surface, "string")
        if not isinstance(is_exploration, bool | None):
            self._say("is_exploration", _kind(is_exploration), "true or false")
        if self.kinds and not self._problems:
            self._id("user.id", user_id, self.kinds["user_id"])
            for each in pin_ids:
                self._id("candidates.pin_id", each, self.kinds["pin_id"])
        at = given.get("requested_at")
        if at is not None and self.kinds:
            if type(at) is not int or abs(at - self.now_ms) > _MOST_APART_MS:
                expected = f"ms since 1970, within {_MOST_APART_MS} of the server's {self.now_ms}"
                self._say("requested_at", _kind(at), expected)
        if chances is None or self._problems:
            return Shown(user_id, surface, bool(is_exploration), None, at)
        chances = self._of_each("candidates.propensity", chances, len(pin_ids))
        found = self._numbers("candidates.propensity", chances, may_be_missing=True)
        if np.any((found < _LEAST_CHANCE) | (found > 1)):
            self._say("candidates.propensity", "not a chance", "numbers in (0, 1], or null")
        known = [None if np.isnan(v) else float(v) for v in found]
        return Shown(user_id, surface, bool(is_exploration), known, at)

    def _id(self, place: str, value: Any, kind: str) -> None:
        if kind == "string":
            if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
                self._say(place, _kind(value), f"a text of 1 to {_LONGEST} characters")
        elif not isinstance(value, int) or isinstance(value, bool) or value.bit_length() > _ID_BITS:
            self._say(place, _kind(value), "an integer of 64 bits, as in the log")

    def _say(self, place: str, found: Any, expected: str) -> None:
        self._problems.append(f"{place} is {found}; expected {expected}")

    def _columns(self, place: str, given: Any) -> Mapping[str, Any]:
        if isinstance(given, Mapping):
            return given
        self._say(place, _kind(given), "an object")
        return {}

    def _unknown(self, place: str, given: Iterable[Any], known: Sequence[str]) -> None:
        if others := sorted(str(name)[:60] for name in set(given) - set(known)):
            self._say(f"{place}{others[0]}", "unknown", f"some of {', '.join(known)}")

    def _length(self, place: str, values: Any) -> int:
        """Return how long a column is, 0 with a problem where it is none."""
        if isinstance(values, list | np.ndarray):
            return len(values)
        self._say(place, "missing" if values is None else _kind(values), "a list")
        return 0

    def _actions(self, given: Mapping[str, Any], keys: dict[Any, int]) -> dict[str, np.ndarray]:
        self._unknown("actions.", given, ACTION_COLUMNS)
        names = ACTION_COLUMNS if given else ()
        lengths = {name: self._length(f"actions.{name}", given.get(name)) for name in names}
        num, longest = lengths.get("action_type", 0), self.config.model.max_actions
        for name, length in lengths.items():
            if length != num:
                self._say(f"actions.{name}", f"{length} long", f"{num}, as actions.action_type")
        if num > longest:
            self._say("actions", f"{num} long", f"at most {longest}: the newest, newest first")
        if self._problems or not num:
            nothing = np.zeros(0, np.int64)
            empty = {"action_types_RS": nothing, "action_ages_ms_RS": nothing}
            zeros = np.zeros((0, self.config.embedding_dim), np.float32)
            return empty | {"action_pin_keys_RS": nothing, "action_pins_RSE": zeros}
        known = {name: n for n, name in enumerate(self.config.features.action_types, 1)}
        codes = [
            known.get(name, 0) if isinstance(name, str) else 0 for name in given["action_type"]
        ]
        if 0 in codes:
            found = given["action_type"][codes.index(0)]
            self._say("actions.action_type", repr(found)[:60], f"one of {', '.join(known)}")
        ages = self._numbers("actions.age_ms", given["age_ms"], may_be_missing=False)
        if np.any((ages < 0) | (ages > _FAR_MS)):
            self._say("actions.age_ms", "negative or too large", "milliseconds before the request")
            ages = np.zeros(num)
        return {
            "action_types_RS": np.array(codes),
            "action_pin_keys_RS": self._keys("actions.pin_id", given["pin_id"], keys),
            "action_pins_RSE": self._embeddings("actions.embedding", given["embedding"], num),
            "action_ages_ms_RS": np.nan_to_num(ages, posinf=0, neginf=0).astype(np.int64),
        }

    def _candidates(self, given: Mapping[str, Any], keys: dict[Any, int]) -> dict[str, np.ndarray]:
        features = self.config.features
        named = [*(each.name for each in features.categorical), *(f.name for f in features.numeric)]
        self._unknown("candidates.", given, ("pin_id", "embedding", "propensity", *named))
        num = self._length("candidates.pin_id", given.get("pin_id"))
        if not 0 < num <= MAX_CANDIDATES and isinstance(given.get("pin_id"), list | np.ndarray):
            self._say("candidates.pin_id", f"{num} long", f"1 to {MAX_CANDIDATES}")
            num = 0
        for name in named if num else ():
            if name not in given:
                self._say(f"candidates.{name}", "missing", "a value for each candidate, or one")
        if self._problems or not num:
            return {}
        columns = {name: self._of_each(f"candidates.{name}", given[name], num) for name in named}
        codes = np.zeros((num, len(features.categorical)), np.int64)
        for g, each in enumerate(features.categorical):
            known = {value: n for n, value in enumerate(each.values, 1)}
            codes[:, g] = [known.get(v, 0) if isinstance(v, str) else 0 for v in columns[each.name]]
        numbers = np.zeros((num, len(features.numeric_inputs)), np.float32)
        places = {name: n for n, name in enumerate(features.numeric_inputs)}
        for feature in features.numeric:
            place = f"candidates.{feature.name}"
            found = self._numbers(place, columns[feature.name], feature.has_flag)
            if feature.has_flag:
                numbers[:, places[flag_name(feature.name)]] = np.isnan(found)
            numbers[:, places[feature.name]] = np.nan_to_num(found)
        embedding = given.get("embedding")
        return {
            "candidate_pin_keys_C": self._keys("candidates.pin_id", given["pin_id"], keys),
            "candidate_pins_CE": self._embeddings("candidates.embedding", embedding, num),
            "categorical_CG": codes,
            "numeric_CN": numbers,
        }

    def _of_each(self, place: str, values: Any, num: int) -> Any:
        """Return a value for each of `num` candidates; one that is no list is all of theirs."""
        if not isinstance(values, list | np.ndarray):
            return [values] * num
        if len(values) != num:
            self._say(place, f"{len(values)} long", f"{num}, as candidates.pin_id, or one value")
            return [None] * num
        return values

    def _keys(self, place: str, values: Any, keys: dict[Any, int]) -> np.ndarray:
        """Return a number for each pin, the same for the same pin of a request."""
        values = values.tolist() if isinstance(values, np.ndarray) else values
        if not all(isinstance(v, int | str) and not isinstance(v, bool) for v in values):
            self._say(place, "not all integers or texts", "an id for each")
            return np.zeros(len(values), np.int64)
        return np.array([keys.setdefault(value, len(keys)) for value in values], np.int64)

    def _numbers(self, place: str, values: Any, may_be_missing: bool) -> np.ndarray:
        """Return float64 numbers, NaN where one is not known."""
        try:
            if any(isinstance(v, bool | str) for v in values):
                raise TypeError
            found = np.array(values, dtype=np.float64)
            if found.ndim != 1:
                raise TypeError
        except (TypeError, ValueError, OverflowError):
            self._say(place, "no list of numbers", "numbers")
            return np.zeros(len(values))
        with np.errstate(over="ignore"):
            is_bad = np.isinf(found.astype(np.float32)) | (np.isnan(found) & (not may_be_missing))
        if is_bad.any():
            allowed = "finite numbers, or null" if may_be_missing else "finite numbers"
            self._say(place, f"{found[is_bad][0]} at {int(is_bad.argmax())}", allowed)
        return found

    def _embeddings(self, place: str, values: Any, num: int) -> np.ndarray:
        """Return float32 (num, E), zeros with a problem where they are not that."""
        shape = (num, self.config.embedding_dim)
        try:
            with np.errstate(over="ignore"):
                found = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError, OverflowError):
            found = np.zeros(0, np.float32)
        if values is None or found.shape != shape or not np.isfinite(found).all():
            said = "missing" if values is None else f"of shape {found.shape}, or not finite"
            self._say(place, said, f"{num} lists of {shape[1]} finite numbers")
            return np.zeros(shape, np.float32)
        return found


def score(predictor: Predictor, requests: Sequence[Decoded]) -> list[Ranked]:
    """Return the answers to some requests, which are scored in one pass.

    Args:
        predictor: The model that the requests were decoded for.
        requests: At least one.
    """
    num_actions = max(1, *(len(each.arrays["action_types_RS"]) for each in requests))
    inputs: dict[str, np.ndarray] = {}
    for name in requests[0].arrays:
        parts = [each.arrays[name] for each in requests]
        if name == "users_RE":
            inputs[name] = np.stack(parts)
        elif name.startswith("action_"):
            padding = -1 if name == "action_pin_keys_RS" else 0
            shape = (len(parts), num_actions, *parts[0].shape[1:])
            inputs[name] = np.full(shape, padding, parts[0].dtype)
            for row, part in zip(inputs[name], parts, strict=True):
                row[: len(part)] = part
        else:
            inputs[name] = np.concatenate(parts)
    counts = [each.num_candidates for each in requests]
    inputs["request_of_C"] = np.repeat(np.arange(len(requests)), counts)
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    features = predictor.config.features
    scores_CH = predictor.probabilities(for_scoring(tensors, len(features.heads)))
    probabilities = {head.name: scores_CH[:, h] for h, head in enumerate(features.heads)}
    utility, ends = ranking_score(probabilities, features.heads), np.cumsum(counts)
    answers = []
    for end, count in zip(ends, counts, strict=True):
        own = slice(end - count, end)
        order = np.argsort(-utility[own], kind="stable")
        answers.append(Ranked({n: of[own] for n, of in probabilities.items()}, utility[own], order))
    return answers


def arrays_of(batch: Batch) -> Iterator[dict[str, np.ndarray]]:
    """Yield the arrays of each request of a batch, as `Decoder` makes them."""
    for row in range(len(batch.users_RE)):
        own, is_action = batch.request_of_C == row, batch.action_types_RS[row] > 0
        arrays = {"users_RE": batch.users_RE[row].numpy()}
        for name in batch._fields:
            if name.startswith("action_"):
                arrays[name] = getattr(batch, name)[row][is_action].numpy()
            elif name.startswith(("candidate_", "categorical_", "numeric_")):
                arrays[name] = getattr(batch, name)[own].numpy()
        yield arrays


def marks_of(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return a text for each candidate of a request that tells what it was ranked by.

    It has half of the CRC-32 of each of MARKS, in MARK_LENGTH hexadecimal digits: every
    impression of a log has this text. What was ranked by the same has the same text.
    """
    of_actions = ("action_types_RS", "action_pins_RSE", "action_ages_ms_RS")
    shared = "".join(_mark(arrays[name]) for name in of_actions)
    user, pins = arrays["users_RE"], arrays["candidate_pins_CE"]
    rows = zip(pins, arrays["categorical_CG"], arrays["numeric_CN"], strict=True)
    return [f"{shared}{_mark(user, pin)}{_mark(codes, numbers)}" for pin, codes, numbers in rows]


def _mark(*parts: np.ndarray) -> str:
    found = 0
    for values in parts:
        # Of two zeros, one with a sign, both are the same number.
        found = zlib.crc32((values + 0 if values.dtype.kind == "f" else values).tobytes(), found)
    return f"{found & 0xFFFF:04x}"


def requests_of(batch: Batch, config: BundleConfig) -> list[dict[str, Any]]:
    """Return the requests of a batch, as a client would give them."""
    features, found = config.features, []
    for row, arrays in enumerate(arrays_of(batch)):
        codes, numbers = arrays["categorical_CG"], arrays["numeric_CN"]
        columns: dict[str, Any] = {
            "pin_id": arrays["candidate_pin_keys_C"].tolist(),
            "embedding": arrays["candidate_pins_CE"].tolist(),
        }
        for g, each in enumerate(features.categorical):
            columns[each.name] = [("no such value", *each.values)[code] for code in codes[:, g]]
        places = {name: n for n, name in enumerate(features.numeric_inputs)}
        for feature in features.numeric:
            values = numbers[:, places[feature.name]].astype(float).tolist()
            if feature.has_flag:
                is_missing = numbers[:, places[flag_name(feature.name)]]
                values = [None if m else v for v, m in zip(values, is_missing, strict=True)]
            columns[feature.name] = values
        types = arrays["action_types_RS"].tolist()
        actions = {
            "action_type": [features.action_types[code - 1] for code in types],
            "pin_id": arrays["action_pin_keys_RS"].tolist(),
            "embedding": arrays["action_pins_RSE"].tolist(),
            "age_ms": arrays["action_ages_ms_RS"].tolist(),
        }
        user = {"embedding": arrays["users_RE"].tolist()}
        found.append({"request_id": f"{row}", "user": user, "actions": actions if types else {}})
        found[-1]["candidates"] = columns
    return found


def _kind(value: Any) -> str:
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
