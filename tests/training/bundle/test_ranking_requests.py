"""A request is scored as the snapshot's own rows are, and what is wrong with one is named."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.contracts.schemas import SPLIT_HOLDOUT
from support.bundles import write_small_bundle
from support.ranking import arrow_of, ranking_request
from training.bundle.files import Predictor, load_bundle
from training.bundle.ranking_requests import (
    Decoder,
    RequestRefusedError,
    of_arrow,
    of_json,
    requests_of,
    score,
)
from training.data.reader import SnapshotReader, chunks

NOW_MS = 1_750_000_000_000
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_bundle(write_small_bundle(tmp_path_factory.mktemp("bundle") / "bundle", seed=1))


def test_a_request_is_scored_as_the_snapshots_rows_are(planted, trained) -> None:
    predictor = load_bundle(Path(trained[1].bundle_dir))
    features, longest = predictor.config.features, predictor.config.model.max_actions
    reader = SnapshotReader(planted.snapshot.shards, planted.folder, features, longest)
    batch = reader.make_batch(next(iter(chunks(reader.index(SPLIT_HOLDOUT), 300))))
    expected_CH, requests = predictor.probabilities(batch), requests_of(batch, predictor.config)
    decoder = Decoder(predictor.config)
    for body in (json.dumps({"requests": requests}).encode(), arrow_of(requests)):
        given_back = (of_json if body.startswith(b"{") else of_arrow)(body)
        answers = score(predictor, [decoder.decode(each) for each in given_back])
        found_CH = np.concatenate([np.stack([*a.probabilities.values()], axis=1) for a in answers])
        assert np.abs(found_CH - expected_CH).max() < 1e-6
        for each in answers:
            assert each.order.tolist() == np.argsort(-each.utility, kind="stable").tolist()


def test_a_request_is_scored_alone_as_among_others(small: Predictor) -> None:
    decoder = Decoder(small.config)
    given = [ranking_request(small.config, num, f"r{num}", num) for num in (1, 5, 30)]
    given[1]["actions"] = {}
    decoded = [decoder.decode(each) for each in given]
    together = score(small, decoded)
    for one, among in zip(decoded, together, strict=True):
        [alone] = score(small, [one])
        assert np.allclose(alone.utility, among.utility, atol=1e-6)
        assert {*alone.probabilities} == {*small.config.features.head_names}


def put(value: Any, *path: str) -> Change:
    def change(request: dict[str, Any]) -> None:
        for name in path[:-1]:
            request = request[name]
        request[path[-1]] = value

    return change


REFUSED: dict[str, tuple[Change, str]] = {
    "no candidates": (lambda r: r.pop("candidates"), "candidates.pin_id is missing; expected a l"),
    "none of them": (put([], "candidates", "pin_id"), "candidates.pin_id is 0 long; expected 1 to"),
    "a name": (lambda r: r.pop("request_id"), "request_id is missing; expected a text"),
    "a typing error": (put(1, "candidats"), "candidats is unknown; expected some of request_id"),
    "a column": (put([1], "candidates", "colour"), "candidates.colour is unknown"),
    "a feature": (lambda r: r["candidates"].popitem(), r"candidates.\w+ is missing; expected a va"),
    "an embedding": (lambda r: r["candidates"].pop("embedding"), "candidates.embedding is missing"),
    "a width": (
        put([[1.0]] * 3, "candidates", "embedding"),
        r"of shape \(3, 1\).*3 lists of 4 fin",
    ),
    "not a number": (put([[float("nan")] * 4] * 3, "candidates", "embedding"), "or not finite"),
    "a type": (put(["repin", "wink"], "actions", "action_type"), "is 'wink'; expected one of"),
    "the future": (put([5, -4], "actions", "age_ms"), "age_ms is negative or too large"),
    "lengths": (put([1], "actions", "age_ms"), "actions.age_ms is 1 long; expected 2, as actions"),
    "text": (put("x", "candidates", "pin_id"), "candidates.pin_id is str 'x'; expected a list"),
    "a deadline": (put(-1, "deadline_ms"), "deadline_ms is int '-1'; expected milliseconds"),
    "a huge age": (put([1, 10**400], "actions", "age_ms"), "actions.age_ms is no list of numbers"),
    "pins": (put([None] * 3, "candidates", "pin_id"), "candidates.pin_id is not all integers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_with_a_request_is_named(small: Predictor, name: str) -> None:
    change, says = REFUSED[name]
    change(request := ranking_request(small.config))
    with pytest.raises(RequestRefusedError, match=says):
        Decoder(small.config).decode(request)


KINDS = {"user_id": "string", "pin_id": "integer"}
UNLOGGED: dict[str, tuple[Change, str]] = {
    "nobody": (lambda r: r["user"].pop("id"), "user.id is missing; expected a text of 1 to 200"),
    "a number": (put(7, "user", "id"), "user.id is int '7'; expected a text"),
    "a long name": (put("x" * 10_000, "user", "id"), "user.id is str 'xxxx"),
    "a name": (put(["a", "b", "c"], "candidates", "pin_id"), "is str 'a'; expected an integer of"),
    "a large pin": (put([1, 1 << 63, 3], "candidates", "pin_id"), "an integer of 64 bits, as in"),
    "a surface": (put("", "surface"), "surface is str ''; expected a text of 1 to 200"),
    "exploration": (put(1, "is_exploration"), "is_exploration is int '1'; expected true or false"),
    "no chance": (put([0.5, 1e-60, 1], "candidates", "propensity"), "expected numbers in .0, 1."),
    "above 1": (put(1.5, "candidates", "propensity"), "propensity is not a chance"),
    "too few": (put([0.5], "candidates", "propensity"), "propensity is 1 long; expected 3"),
}


@pytest.mark.parametrize("name", UNLOGGED)
def test_what_a_log_would_not_take_is_refused(small: Predictor, name: str) -> None:
    change, says = UNLOGGED[name]
    request = ranking_request(small.config)
    request["user"]["id"] = "u\0\n"
    Decoder(small.config, KINDS).decode(request)
    change(request)
    with pytest.raises(RequestRefusedError, match=says):
        Decoder(small.config, KINDS).decode(request)


def test_what_a_log_asks_for_is_read_from_json_and_arrow(small: Predictor) -> None:
    request = ranking_request(small.config) | {"surface": "closeup", "is_exploration": True}
    request["user"]["id"] = 8
    request["candidates"]["propensity"] = [0.5, None, 1.0]
    request["requested_at"] = NOW_MS - 599_000
    kinds = dict.fromkeys(KINDS, "integer")
    for body in (of_json(json.dumps(request).encode()), of_arrow(arrow_of([request]))):
        found = Decoder(small.config, kinds, NOW_MS).decode(body[0])
        assert found.shown == (8, "closeup", True, [0.5, None, 1.0], NOW_MS - 599_000)
        assert json.dumps(found.pin_ids) == "[7, 100, 101]"


@pytest.mark.parametrize("wrong", [NOW_MS - 601_000, NOW_MS + 601_000, 1.5, "now", True])
def test_a_clock_that_the_log_cannot_believe_is_refused(small: Predictor, wrong: Any) -> None:
    request = ranking_request(small.config) | {"requested_at": wrong}
    request["user"]["id"] = 8
    with pytest.raises(RequestRefusedError, match=f"requested_at is .*server's {NOW_MS}"):
        Decoder(small.config, dict.fromkeys(KINDS, "integer"), NOW_MS).decode(request)


def test_too_many_actions_are_refused(small: Predictor) -> None:
    request, longest = ranking_request(small.config), small.config.model.max_actions
    for column, values in request["actions"].items():
        request["actions"][column] = [values[0]] * (longest + 1)
    with pytest.raises(RequestRefusedError, match=f"at most {longest}: the newest"):
        Decoder(small.config).decode(request)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
PLACES = [("request_id",), ("deadline_ms",), ("user",), ("user", "embedding"), ("actions",),
          *(("actions", n) for n in ("action_type", "pin_id", "embedding", "age_ms")),
          ("candidates",), ("candidates", "pin_id"), ("candidates", "embedding")]  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(place=st.sampled_from(PLACES), value=ANY)
@example(place=("user", "embedding"), value=[False, False, False, 1.33e20])
def test_whatever_stands_in_a_request_is_scored_or_refused(
    small: Predictor, place: tuple[str, ...], value: Any
) -> None:
    request = copy.deepcopy(ranking_request(small.config))
    put(value, *place)(request)
    try:
        [answer] = score(small, [Decoder(small.config).decode(request)])
    except RequestRefusedError as error:
        assert re.search("expected", str(error))
    else:
        assert not answer.trouble or np.abs(np.array(value, float)).max() > 1e9


@pytest.mark.parametrize(
    "body", [b"", b"[", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"requests": 1}']
)
def test_a_body_that_holds_no_requests_is_refused(body: bytes) -> None:
    for read in (of_json, of_arrow):
        with pytest.raises(RequestRefusedError, match="the body"):
            read(body)
