"""Own functions by import path: what they are given, and every way in which one is refused."""

import contextlib
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import HOUR_MS
from pipelines.snapshot.features.own import check_no_leak
from pipelines.snapshot.features.own_view import (
    Seen,
    SeenActions,
    SeenExamples,
    SeenPins,
    SeenRequests,
    SeenUsers,
)
from pipelines.storage import local_path
from support.random_log import build, config_of, write_random_log

HEAD = "import numpy as np\n\n\ndef feature(seen):\n"
COUNT_KNOWN = (
    "    requests = seen.requests\n"
    "    counts = requests.timeline_end - requests.timeline_start\n"
    "    values = np.log1p(counts)[seen.examples.request]\n"
    "    return np.where(values > 0, values, np.nan)\n"
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_random_log(folder / "event_log")
    return folder


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path; modules that a test writes there are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def build_own(
    log: Path, modules: Path, source: str, may_be_missing: bool = False, num_workers: int = 1
) -> Snapshot:
    """Return the snapshot with the function `own_features:feature` of this source."""
    (modules / "own_features.py").write_text(source)
    sys.modules.pop("own_features", None)
    importlib.invalidate_caches()
    option = {"may_be_missing": True} if may_be_missing else {}
    own = NumericFeature(name="own_features:feature", **option)
    config = config_of(own, *(NumericFeature(name=f"user_actions:{t}") for t in ("repin",)))
    return build(log, config, num_workers)


def column(snapshot: Snapshot, name: str) -> np.ndarray:
    folder = local_path(snapshot.uri)
    parts = [open_table(folder, f"{s.name}/examples.arrow")[name] for s in snapshot.shards]
    return np.concatenate([np.asarray(part) for part in parts])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_function_becomes_a_column_and_a_flag(log: Path, modules: Path, num_workers: int) -> None:
    snapshot = build_own(log, modules, HEAD + COUNT_KNOWN, True, num_workers)
    values = column(snapshot, "num_own_features:feature")
    is_missing = column(snapshot, "num_own_features:feature_missing")
    expected = []
    for shard in snapshot.shards:
        requests = open_table(local_path(snapshot.uri), f"{shard.name}/requests.arrow").to_pylist()
        for row in requests:
            length = row["timeline_end"] - row["timeline_start"]
            expected += [length] * row["num_examples"]
    assert np.expm1(values).round(4).tolist() == expected
    assert is_missing.tolist() == [int(length == 0) for length in expected]
    assert 0 < is_missing.sum() < len(is_missing)


def test_the_example_of_the_page_works(log: Path, modules: Path) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "features.md").read_text()
    [source] = re.findall(r"```python\n(import numpy.*?)```", page, re.DOTALL)
    (modules / "own_features.py").write_text(source)
    importlib.invalidate_caches()
    own = NumericFeature(name="own_features:actions_per_day", may_be_missing=True)
    values = column(build(log, config_of(own)), "num_own_features:actions_per_day")
    assert values.max() > 1


AHEAD = (
    r"(looks ahead|depends on rows beyond its user's).*it returned .*expected the same.*look only "
    r"at the rows of `actions` from timeline_start"
)
REFUSED = {
    "all of the user's actions": (
        "    last = len(seen.actions.pin_row)\n"
        "    starts = np.unique(np.append(seen.requests.timeline_start, last))\n"
        "    end = starts[np.searchsorted(starts, seen.requests.timeline_start, side='right')]\n"
        "    return (end - seen.requests.timeline_start)[seen.examples.request]\n",
        AHEAD,
    ),
    "how often the pin is shown": (
        "    return np.bincount(seen.examples.pin_row)[seen.examples.pin_row]\n",
        AHEAD,
    ),
    "chance": (
        "    return np.random.random(len(seen.examples.pin_row))\n",
        "is not deterministic: called twice",
    ),
    "NaN": (
        "    return np.where(seen.examples.pin_row % 2, np.nan, 1.0)\n",
        "returned NaN for .* may_be_missing=True",
    ),
    "inf": (
        "    return 1.0 / np.zeros(len(seen.examples.pin_row))\n",
        "returned inf for .*expected finite",
    ),
    "too few": (
        "    return np.zeros(len(seen.requests.user_id))\n",
        r"returned ndarray of shape \(\d+,\).*expected float32 numbers of shape",
    ),
    "nothing": ("    return None\n", "returned NoneType of shape"),
    "an error": (
        "    raise ValueError('no such brand')\n",
        "raised ValueError: no such brand on .*correct the function",
    ),
    "writing": (
        "    seen.actions.acted_at[:] = 0\n    return seen.examples.pin_row * 0\n",
        "raised ValueError: assignment destination is read-only",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_a_function_may_not_do_is_named(log: Path, modules: Path, what: str) -> None:
    source, expected = REFUSED[what]
    with pytest.raises(ConfigurationError, match=f"own_features:feature {expected}"):
        build_own(log, modules, HEAD + source)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("missing_module:feature", "", "cannot be imported in this process .*PYTHONPATH"),
        ("given:featur", HEAD + COUNT_KNOWN, "has nothing of the name 'featur'"),
        ("given:feature", "feature = 3\n", "has int 3 of the name 'feature'"),
        ("given:feature", "1 / 0\n", "ZeroDivisionError"),
        ("impressions.position", "", "column 'position' of impressions, which belongs"),
    ],
)
def test_what_is_no_feature_is_refused_before_anything_is_read(
    tmp_path: Path, modules: Path, name: str, source: str, expected: str
) -> None:
    """There is no event log here, so that nothing can have been read."""
    (modules / "given.py").write_text(source)
    importlib.invalidate_caches()
    with pytest.raises(ConfigurationError, match=expected):
        build(tmp_path, config_of(NumericFeature(name=name)))


def test_a_module_without_a_source_file_is_refused(log: Path, modules: Path) -> None:
    sys.modules["typed_in"] = type(sys)("typed_in")
    sys.modules["typed_in"].feature = lambda seen: seen.examples.pin_row
    with pytest.raises(
        ConfigurationError, match="'typed_in:feature': its module has no source file"
    ):
        build(log, config_of(NumericFeature(name="typed_in:feature")))


def test_two_workers_never_call_a_function_at_once(log: Path, modules: Path) -> None:
    """It would find another call's entry in its module while it sleeps."""
    source = (
        "import time\n\nimport numpy as np\n\nCALLS = []\n\n\ndef feature(seen):\n"
        "    CALLS.append(seen)\n    time.sleep(0.01)\n    num_calls = len(CALLS)\n"
        "    CALLS.pop()\n    return np.full(len(seen.examples.request), num_calls)\n"
    )
    snapshot = build_own(log, modules, source, num_workers=2)
    assert set(column(snapshot, "num_own_features:feature")) == {1.0}


def test_the_source_is_part_of_the_snapshots_identity(log: Path, modules: Path) -> None:
    first = build_own(log, modules, HEAD + COUNT_KNOWN, True)
    again = build_own(log, modules, HEAD + COUNT_KNOWN, True)
    other = build_own(log, modules, "# Another way.\n" + HEAD + COUNT_KNOWN, True)
    assert first.digest == again.digest != other.digest
    shards = [
        [file.sha256 for file in found.files if "shard" in file.path] for found in (first, other)
    ]
    assert shards[0] == shards[1]


NUM_REQUESTS = 6  # of each user; one action becomes known between two of them
USER_IDS = np.array([-1, 0, 8])


def shard() -> Seen:
    """Return requests of one candidate each; the first user's id is -1, an id as any other."""
    num_users, num_rows = len(USER_IDS), len(USER_IDS) * NUM_REQUESTS
    user, number = np.divmod(np.arange(num_rows), NUM_REQUESTS)
    impressed_at = (100 + number * 10 + user) * HOUR_MS
    late_h = np.random.default_rng(7).integers(1, 30, num_rows)
    start = user * NUM_REQUESTS
    users = np.arange(num_users)
    return Seen(
        requests=SeenRequests(
            user_id=USER_IDS[user],
            impressed_at=impressed_at,
            known_at=impressed_at + late_h * HOUR_MS,
            timeline_start=start,
            timeline_end=start + number,
            user_row=user,
            first_example=np.arange(num_rows),
            num_examples=np.ones(num_rows, dtype=np.int64),
        ),
        examples=SeenExamples(request=np.arange(num_rows), pin_row=np.arange(num_rows)),
        actions=SeenActions(
            pin_row=np.arange(num_rows),
            action_type_id=np.ones(num_rows, dtype=np.int64),
            acted_at=impressed_at + HOUR_MS,
            known_at=impressed_at + HOUR_MS,
        ),
        pins=SeenPins(np.arange(num_rows), np.ones((num_rows, 2), dtype=np.float32), {}),
        users=SeenUsers(USER_IDS, users * 0, np.ones((num_users, 2), dtype=np.float32), {}),
        action_type_ids={"repin": 1},
    )


def check(function: Callable[[Seen], np.ndarray]) -> None:
    def call(seen: Seen) -> np.ndarray:
        return np.asarray(function(seen), dtype=np.float32)

    check_no_leak("my.module:feature", call, shard(), call(shard()))


def known_actions(seen: Seen) -> np.ndarray:
    of = seen.requests
    return (of.timeline_end - of.timeline_start)[seen.examples.request]


def since_oldest_action(seen: Seen) -> np.ndarray:
    """Return the hours from the user's first known action to the request, 0 without any."""
    of, acted_at = seen.requests, np.append(seen.actions.acted_at, 0)
    since_ms = of.impressed_at - acted_at[of.timeline_start]
    counts = of.timeline_end - of.timeline_start
    return np.where(counts > 0, since_ms / HOUR_MS, 0)[seen.examples.request]


def later_requests(seen: Seen) -> np.ndarray:
    """Return how many requests of the same user there are, also later ones."""
    _, place, counts = np.unique(seen.requests.user_id, return_inverse=True, return_counts=True)
    return counts[place][seen.examples.request]


def requests_before(seen: Seen, times: np.ndarray) -> np.ndarray:
    of = seen.requests
    is_earlier = times[None, :] < of.impressed_at[:, None]
    is_own = of.user_id[None, :] == of.user_id[:, None]
    return (is_earlier & is_own).sum(axis=1)[seen.examples.request]


def earlier_requests(seen: Seen) -> np.ndarray:
    """Return how many earlier requests of the same user there are, also those not known yet."""
    return requests_before(seen, seen.requests.impressed_at)


def known_earlier_requests(seen: Seen) -> np.ndarray:
    """Return how many earlier requests were known, as every function may count them."""
    return requests_before(seen, seen.requests.known_at)


def own_known_at(seen: Seen) -> np.ndarray:
    return ((seen.requests.known_at - seen.requests.impressed_at) / HOUR_MS)[seen.examples.request]


def rounded(seen: Seen) -> np.ndarray:
    """Sums that were added up in another order differ in the last digits, beside many zeros."""
    return np.where(known_actions(seen) == 5, 1.0, 1e-13 * len(seen.requests.user_id))


AHEAD_OF = "looks ahead: .*actions and requests that were not known before"
OWN = (
    "looks ahead: .*without the known_at of that very request.*look only at the impressed_at of "
    "the request itself"
)


LOOKS = {
    known_actions: None,
    since_oldest_action: None,
    known_earlier_requests: None,
    later_requests: AHEAD_OF,
    earlier_requests: AHEAD_OF,
    own_known_at: OWN,
}


@pytest.mark.parametrize(
    ("function", "scale"),
    [*((each, scale) for each in LOOKS for scale in (1e-9, 1.0, 1e9)), (rounded, 1.0)],
)
def test_who_looks_ahead_is_refused_whatever_the_scale_of_its_numbers(
    function: Callable[[Seen], np.ndarray], scale: float
) -> None:
    expected = LOOKS.get(function)
    refused = pytest.raises(ConfigurationError, match=f"my.module:feature {expected}")
    with refused if expected else contextlib.nullcontext():
        check(lambda seen: function(seen) * scale)
    assert len(set(function(shard()).tolist())) > 1 or function is later_requests
