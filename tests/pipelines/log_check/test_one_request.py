"""What is shown of a request is what the whole snapshot holds of it."""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner, Result

from pipelines import storage
from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.snapshot_files import open_table
from pipelines.event_log.log_files import open_event_log
from pipelines.log_check.measuring import check_log
from pipelines.log_check.one_request import build_one_user
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.plan import plan_of
from pipelines.sources.event_log_writer import EventLogWriter, id_of
from support.mistakes import IMPRESSIONS_18
from support.own_tables import VERSION, acted_on, pins, shown_on, users
from support.runs import PLANTED_AS_OF, make_run
from support.tiny_log import ACTIONS_15, january, rewrite, shown, tiny_impressions, write_tiny_log
from support.worlds import write_planted_world


def said(log: str, request: str, recipe: str = "smoke", *more: str) -> Result:
    words = ["log", "show", "--request", request, log, "--recipe", recipe, *more]
    return CliRunner().invoke(app, words)


def test_a_users_shard_is_that_of_the_whole_snapshot(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log")
    run = make_run(tmp_path)
    snapshot = write_snapshot(run)
    folder = storage.local_path(snapshot.uri)

    plan = plan_of(smoke().model_copy(update={"snapshot": ONE}), PLANTED_AS_OF)

    def examples_of(requests: pa.Table, examples: pa.Table, pins: pa.Table) -> list[dict]:
        """Return the last user's examples with ids in place of rows."""
        return [
            example | {"request_row": row["request_id"], "pin_row": pins[example["pin_row"]]}
            for row in requests.to_pylist()
            if row["user_id"] == user
            for example in examples.slice(row["first_example"], row["num_examples"]).to_pylist()
        ]

    assert len(snapshot.shards) == 2
    for shard in snapshot.shards:
        whole = [open_table(folder, f"{shard.name}/{n}.arrow") for n in ("requests", "examples")]
        user = whole[0]["user_id"].to_pylist()[-1]
        built = build_one_user(open_event_log(run.event_log_uri), plan, user)
        assert built is not None
        own = examples_of(built[0].requests, built[0].examples, built[1]["pin_id"].to_pylist())
        expected = examples_of(*whole, open_table(folder, "pins.arrow")["pin_id"].to_pylist())
        assert own == expected != []


ONE = smoke().snapshot.model_copy(update={"num_shards": 1})


@pytest.fixture
def log(tmp_path: Path) -> str:
    write_tiny_log(tmp_path / "event_log")
    return str(tmp_path / "event_log")


def test_a_request_is_told_with_labels_actions_user_and_numbers(log: str) -> None:
    """Request C of the tiny log: user 1 at midnight of the 18th, pins 10 and 30."""
    told = yaml.safe_load(said(log, "C").output)
    assert told == json.loads(said(log, "C", "smoke", "--json").stdout)
    assert (told["request_id"], told["user"]) == ("C", "1")
    assert told["impressed_at"] == "2017-01-18 00:00:00 UTC"
    assert told["user_row"]["as_of"] == "2017-01-15 00:00:00 UTC"
    repin = {"action_type": "repin", "pin": "10", "acted_at": "2017-01-15 00:00:00 UTC"}
    assert any(each.items() >= repin.items() for each in told["actions"])
    labels = [(each["pin"], each["got"]) for each in told["candidates"]]
    assert labels == [("10", ["repin"]), ("30", [])]
    assert "pin_popularity" in " ".join(told["candidates"][0]["numbers"])


def late_request(log: Path) -> None:
    late = [row | {"known_at": january("25 00:00")} for row in shown("E", 3, "19 08:00", 10, 20)]
    write_tiny_log(log, [*tiny_impressions(), *late])


def write_ids(path: str, column: str, *values: int | None) -> Callable[[Path], object]:
    return lambda log: rewrite(log, path, column, pa.array(values, pa.int64()))


@pytest.mark.parametrize(
    ("change", "request_id", "error", "says"),
    [
        (late_request, "nobody's", ConfigurationError,
         "has no request .*from 2017-01-14 to 2017-01-19; correct --request"),
        (late_request, "E", ConfigurationError,
         "'E' of user 3 has no impressions .* that a cycle of 2017-01-21 would judge; expected"),
        # The file of the log is named, and not a copy of it.
        (write_ids(ACTIONS_15, "known_at", january("14 00:00")), "C",
         DataContractError, rf"^.*event_log/{ACTIONS_15}: acted_at is after known_at \(1 such row"),
        (write_ids(IMPRESSIONS_18, "user_id", None, None, 1, 1), "C", DataContractError,
         r"18/part-0.parquet: column 'user_id' is null \(2 such rows, first row 0: request_id=C"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused(
    log: str, change: Callable[[Path], object], request_id: str, error: type, says: str
) -> None:
    change(Path(log))
    done = said(log, request_id)
    assert isinstance(done.exception, error)
    assert re.search(says, str(done.exception))


def test_what_a_killed_look_has_left_is_removed_by_the_next(
    log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(log).parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    orphan = own_temporary_folder("scratch") / ".scratch-killed"
    for look in (lambda: said(log, "C"), lambda: check_log(log)):
        (orphan / "event_log").mkdir(parents=True)
        look()
        assert list(temporary.rglob("*")) == [orphan.parent]


def test_a_log_of_texts_is_told_by_names_as_of_the_cycle_that_judges_the_request(
    tmp_path: Path,
) -> None:
    """User `00091480` is another one than `91480`, and pins are p0 to p2."""
    names = {"u0": "00091480", "u1": "91480"}
    with EventLogWriter(tmp_path / "own", VERSION) as writer:
        writer.pins(pins())
        writer.users({**users(), "user_id": list(names.values())})
        for day in range(1, 8):
            writer.impressions(shown_on(day).replace({"user_id": names}))
            writer.actions(acted_on(day).replace({"user_id": names}))
    days = "training_days: 2, embargo_days: 1, holdout_days: 1, history_days: 5, core_days: 4"
    (tmp_path / "own.yaml").write_text(
        f"extends: smoke\nsnapshot: {{{days}, popularity_days: 3, embedding_version: {VERSION}}}\n"
    )
    for request, name, day in (("4-0", "00091480", 6), ("6-1", "91480", 8)):
        told = yaml.safe_load(said(f"{tmp_path}/own", request, f"{tmp_path}/own.yaml").output)
        assert told["as_of"] == f"2024-01-0{day}"
        assert (told["request_id"], told["user"]) == (request, f"{id_of(name)} ({name!r})")
        assert f"{id_of('p1')} ('p1')" in {each["pin"] for each in told["candidates"]}
        known = {f"{id_of(pin)} ({pin!r})" for pin in ("p1", "p2")}
        assert {each["pin"] for each in told["actions"]} & known
