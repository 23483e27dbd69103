"""Own functions by import path: what they are given, and every way in which one is refused."""

import contextlib
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import HOUR_MS
from pipelines.snapshot.features import own
from pipelines.snapshot.features.own import Seen
from pipelines.storage import local_path
from support.random_log import build, config_of, write_random_log

COUNT_KNOWN = """
import numpy as np

def feature(seen):
    counts = seen.requests.timeline_end - seen.requests.timeline_start
    values = np.log1p(counts)[seen.examples.request]
    return np.where(values > 0, values, np.nan)
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_random_log(folder / "event_log")
    return folder


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; modules that a test writes there are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write_module(modules: Path, source: str) -> None:
    (modules / "given.py").write_text(source)
    sys.modules.pop("given", None)
    importlib.invalidate_caches()


def build_own(log: Path, modules: Path, source: str, name: str = "feature") -> Snapshot:
    """Return the snapshot with a function of this source."""
    write_module(modules, source)
    feature = NumericFeature(name=f"given:{name}", may_be_missing=True)
    return build(log, config_of(feature, NumericFeature(name="user_actions:repin")))


def column(snapshot: Snapshot, name: str, file: str = "examples") -> np.ndarray:
    folder = local_path(snapshot.uri)
    parts = [open_table(folder, f"{s.name}/{file}.arrow")[name] for s in snapshot.shards]
    return np.concatenate([np.asarray(part) for part in parts])


def test_a_function_becomes_a_column_and_a_flag(log: Path, modules: Path) -> None:
    snapshot = build_own(log, modules, COUNT_KNOWN)
    names = ("timeline_start", "timeline_end", "num_examples")
    start, end, num_examples = (column(snapshot, name, "requests") for name in names)
    expected = np.repeat(end - start, num_examples)
    assert np.expm1(column(snapshot, "num_given:feature")) == pytest.approx(expected, abs=1e-4)
    assert column(snapshot, "num_given:feature_missing").tolist() == (expected == 0).tolist()
    assert expected.min() == 0 < expected.max()


def test_the_example_of_the_page_works(log: Path, modules: Path) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "features.md").read_text()
    [source] = re.findall(r"```python\n(import numpy.*?)```", page, re.DOTALL)
    snapshot = build_own(log, modules, source, "actions_per_day")
    assert column(snapshot, "num_given:actions_per_day").max() > 1


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("missing_module:feature", "", "cannot be imported in this process .*PYTHONPATH"),
        ("given:featur", COUNT_KNOWN, "'featur' of the module given is None"),
        ("given:feature", "feature = 3\n", "'feature' of the module given is 3"),
        ("given:feature", "1 / 0\n", "ZeroDivisionError"),
        ("impressions.position", "", "column 'position' of impressions, which belongs"),
    ],
)
def test_what_is_no_feature_is_refused_before_anything_is_read(
    tmp_path: Path, modules: Path, name: str, source: str, expected: str
) -> None:
    """There is no event log here, so that nothing can have been read."""
    write_module(modules, source)
    with pytest.raises(ConfigurationError, match=expected):
        build(tmp_path, config_of(NumericFeature(name=name)))


def test_a_module_without_a_source_file_is_refused(log: Path, modules: Path) -> None:
    sys.modules["typed_in"] = type(sys)("typed_in")
    sys.modules["typed_in"].feature = known_actions
    with pytest.raises(ConfigurationError, match="'typed_in:feature': its module has no source"):
        build(log, config_of(NumericFeature(name="typed_in:feature")))


def test_two_workers_never_call_a_function_at_once(log: Path, modules: Path) -> None:
    """It would find another call's entry in its module while it sleeps."""
    source = (
        "import time\n\nimport numpy as np\n\nCALLS = []\n\n\ndef feature(seen):\n"
        "    CALLS.append(seen)\n    time.sleep(0.01)\n    num_calls = len(CALLS)\n"
        "    CALLS.pop()\n    return np.full(len(seen.examples.request), num_calls)\n"
    )
    assert set(column(build_own(log, modules, source), "num_given:feature")) == {1.0}


def test_the_source_is_part_of_the_snapshots_identity(log: Path, modules: Path) -> None:
    sources = (COUNT_KNOWN, COUNT_KNOWN, f"# Another way.\n{COUNT_KNOWN}")
    first, again, other = (build_own(log, modules, source) for source in sources)
    assert first.digest == again.digest != other.digest
    one, two = ([f.sha256 for f in each.files if "shard" in f.path] for each in (first, other))
    assert one == two


NUM_REQUESTS = 6  # of each user; one action becomes known between two of them
USER_IDS = np.array([-1, 0, 8, 9])


def shard() -> Seen:
    """Return requests of one candidate each; the first user's id is -1, an id as any other."""
    num_users, num_rows = len(USER_IDS), len(USER_IDS) * NUM_REQUESTS
    rows, ones = np.arange(num_rows), np.ones(num_rows, dtype=np.int64)
    user, number = np.divmod(rows, NUM_REQUESTS)
    impressed_at = (100 + number * 10 + user) * HOUR_MS
    known_at = impressed_at + np.random.default_rng(7).integers(1, 30, num_rows) * HOUR_MS
    start, acted_at = user * NUM_REQUESTS, impressed_at + HOUR_MS
    users, vectors = np.arange(num_users), np.ones((num_rows, 2), dtype=np.float32)
    return Seen(
        own.SeenRequests(
            USER_IDS[user], impressed_at, known_at, start, start + number, user, rows, ones
        ),
        own.SeenExamples(request=rows, pin_row=rows),
        own.SeenActions(rows, ones, acted_at=acted_at, known_at=acted_at),
        own.SeenPins(rows, vectors, {}),
        own.SeenUsers(USER_IDS, users * 0, vectors[:num_users], {}),
        action_type_ids={"repin": 1},
    )


def known_actions(seen: Seen) -> np.ndarray:
    return seen.requests.timeline_end - seen.requests.timeline_start


def all_actions(seen: Seen) -> np.ndarray:
    """Return the number of the user's actions, also the later ones."""
    starts = np.unique(np.append(seen.requests.timeline_start, len(seen.actions.pin_row)))
    end = starts[np.searchsorted(starts, seen.requests.timeline_start, side="right")]
    return end - seen.requests.timeline_start


def since_oldest_action(seen: Seen) -> np.ndarray:
    """Return the hours from the user's first known action to the request, 0 without any."""
    of, acted_at = seen.requests, np.append(seen.actions.acted_at, 0)
    hours = (of.impressed_at - acted_at[of.timeline_start]) / HOUR_MS
    return np.where(known_actions(seen) > 0, hours, 0)


def requests_before(seen: Seen, times: np.ndarray) -> np.ndarray:
    """Return how many requests of the same user have a time before that of each request."""
    of = seen.requests
    is_earlier = times[None, :] < of.impressed_at[:, None]
    return (is_earlier & (of.user_id[None, :] == of.user_id[:, None])).sum(axis=1)


def rounded(seen: Seen) -> np.ndarray:
    """Sums that were added up in another order differ in the last digits, beside many zeros."""
    return np.where(known_actions(seen) == 5, 1.0, 1e-13 * len(seen.requests.user_id))


AHEAD = "looks ahead: .*not known before that request, and its own known_at"
SCALED = [
    (known_actions, ""),
    (since_oldest_action, ""),
    (lambda seen: requests_before(seen, seen.requests.known_at), ""),
    (lambda seen: requests_before(seen, seen.requests.impressed_at), AHEAD),
    (lambda seen: requests_before(seen, 0 * seen.requests.impressed_at), AHEAD),
    (lambda seen: (seen.requests.known_at - seen.requests.impressed_at) / HOUR_MS, AHEAD),
]
JUDGED = [
    (rounded, ""),
    (all_actions,
     "(looks ahead|depends on rows beyond).*it returned .*expected the same.*look only"),
    (lambda seen: known_actions(seen) + len(seen.users.user_id),
     "depends on rows beyond its user's.*without the other users"),
    (lambda seen: np.random.random(len(seen.examples.pin_row)),
     "is not deterministic: called twice"),
    (lambda seen: np.full(24, np.nan), "returned NaN for .* may_be_missing=True"),
    (lambda seen: np.full(24, np.inf), "returned inf for .*expected finite"),
    (lambda seen: np.zeros(2), r"returned ndarray of shape \(2,\).*expected float32 numbers"),
    (lambda seen: None, "returned NoneType of shape"),
    (lambda seen: int("brand"), "raised ValueError: invalid .* 'brand' on .*correct the function"),
    (lambda seen: seen.actions.acted_at.fill(0), "raised ValueError: assignment destination is re"),
    *((lambda seen, of=function, scale=scale: scale * of(seen), says)
      for function, says in SCALED for scale in (1e-9, 1.0, 1e9)),
]  # fmt: skip


@pytest.mark.parametrize(("function", "says"), JUDGED)
def test_what_a_function_may_not_do_is_named_whatever_the_scale_of_its_numbers(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[Seen], object], says: str
) -> None:
    monkeypatch.setattr(own, "NUM_USERS", 4)  # the first two and the last, of four
    feature = NumericFeature(name="my.module:feature")
    call = functools.partial(own._call, function, feature)
    refused = pytest.raises(ConfigurationError, match=f"my.module:feature {says}")
    with refused if says else contextlib.nullcontext():
        own.check_no_leak(feature.name, call, shard(), call(shard()))
