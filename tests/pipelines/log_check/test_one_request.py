"""What is shown of a request is what the whole snapshot holds of it."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

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
from pipelines.log_check.one_request import build_one_user, lines_of
from pipelines.log_check.run import check_log
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.sources import EventLogWriter
from pipelines.sources.writer.batches import id_of
from support.own_tables import VERSION, acted_on, pins, shown_on, users
from support.runs import PLANTED_AS_OF, make_run
from support.tiny_log import (
    ACTIONS_15,
    january,
    rewrite,
    shown,
    tiny_impressions,
    write_tiny_log,
)
from support.worlds import write_planted_world


def said(*words: str) -> Result:
    return CliRunner().invoke(app, ["log", "show", *words])


def examples_of(requests: pa.Table, examples: pa.Table, pins: pa.Table, name: str) -> list[dict]:
    """Return a request's examples with pin_id in place of the row."""
    row = requests["request_id"].to_pylist().index(name)
    first, count = (requests[n][row].as_py() for n in ("first_example", "num_examples"))
    rows = examples.slice(first, count).to_pylist()
    return [row | {"pin_row": pins["pin_id"][row["pin_row"]].as_py()} for row in rows]


def test_a_users_shard_is_that_of_the_whole_snapshot(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log")
    run = make_run(tmp_path)
    snapshot = write_snapshot(run)
    folder = storage.local_path(snapshot.uri)
    pins = open_table(folder, "pins.arrow")
    compared = 0
    for shard in snapshot.shards:
        whole = {n: open_table(folder, f"{shard.name}/{n}.arrow") for n in ("requests", "examples")}
        users = whole["requests"]["user_id"].to_pylist()
        names = whole["requests"]["request_id"].to_pylist()
        user, name = users[-1], names[-1]
        own = build_one_user(open_event_log(run.event_log_uri), smoke(), PLANTED_AS_OF, user)
        tables = (own.tables.requests, own.tables.examples, own.pins)
        expected = examples_of(whole["requests"], whole["examples"], pins, name)
        assert examples_of(*tables, name) == expected
        assert own.tables.requests["request_id"].to_pylist() == [
            each for each, owner in zip(names, users, strict=True) if owner == user
        ]
        compared += 1
    assert compared == 2


@pytest.fixture
def log(tmp_path: Path) -> str:
    write_tiny_log(tmp_path / "event_log")
    return str(tmp_path / "event_log")


def test_a_request_is_told_with_labels_actions_user_and_numbers(log: str) -> None:
    """Request C of the tiny log: user 1 at midnight of the 18th, pins 10 and 30."""
    told = yaml.safe_load(said(log, "--request", "C", "--recipe", "smoke").output)
    assert (told["request_id"], told["user"], told["split"]) == ("C", "1", "holdout")
    assert told["impressed_at"] == "2017-01-18 00:00:00 UTC"
    assert told["user_row"]["as_of"] == "2017-01-15 00:00:00 UTC"
    repin = {"action_type": "repin", "pin": "10", "acted_at": "2017-01-15 00:00:00 UTC"}
    assert any(each.items() >= repin.items() for each in told["actions"])
    assert [(each["pin"], each["got"]) for each in told["candidates"]] == [
        ("10", ["repin"]),
        ("30", []),
    ]
    read = json.loads(said(log, "--request", "C", "--recipe", "smoke", "--json").stdout)
    assert read["impressed_at_ms"] == january("18 00:00")
    assert len(read["actions"]) == len(told["actions"])
    assert "pin_popularity" in " ".join(read["candidates"][0]["numbers"])


def test_names_of_a_recipe_are_no_times() -> None:
    told = {"at_ms": 0, "numbers": {"impressions.age_ms": 1e18}, "categories": {"speed_ms": None}}
    read = yaml.safe_load("\n".join(lines_of(told)))
    assert read == {
        "at": "1970-01-01 00:00:00 UTC",
        "numbers": {"impressions.age_ms": 1e18},
        "categories": {"speed_ms": None},
    }


def test_what_is_not_there_is_said(log: str) -> None:
    late = [row | {"known_at": january("25 00:00")} for row in shown("E", 3, "19 08:00", 10, 20)]
    write_tiny_log(Path(log), [*tiny_impressions(), *late])
    for request, reason in (
        ("nobody's", "has no request .*from 2017-01-14 to 2017-01-19; correct --request"),
        ("E", "user 3 has no impressions .* in the windows of as_of 2017-01-21"),
    ):
        done = said(log, "--request", request, "--recipe", "smoke")
        assert isinstance(done.exception, ConfigurationError)
        assert re.search(reason, str(done.exception))


def test_an_error_names_the_file_of_the_log_and_not_a_copy_of_it(log: str) -> None:
    path = rewrite(Path(log), ACTIONS_15, "known_at", pa.array([january("14 00:00")]))
    done = said(log, "--request", "C", "--recipe", "smoke")
    assert isinstance(done.exception, DataContractError)
    assert str(done.exception).startswith(f"{path}: acted_at is after known_at (1 such row")


def test_a_request_of_nobody_breaks_the_contract(log: str) -> None:
    path = "impressions/day=2017-01-18/part-0.parquet"
    users = pa.array([None, None, 1, 1], pa.int64())
    rewrite(Path(log), path, "user_id", users)
    done = said(log, "--request", "C", "--recipe", "smoke")
    assert isinstance(done.exception, DataContractError)
    assert f"{path}: column 'user_id' is null (2 such rows, first row 0: request_id=C" in str(
        done.exception
    )


def test_what_a_killed_look_has_left_is_removed_by_the_next(
    log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(log).parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    orphan = own_temporary_folder("scratch") / ".scratch-killed"
    for look in (lambda: said(log, "--request", "C", "--recipe", "smoke"), lambda: check_log(log)):
        (orphan / "event_log").mkdir(parents=True)
        look()
        assert list(temporary.rglob("*")) == [orphan.parent]


@pytest.fixture
def own_log(tmp_path: Path) -> str:
    """A log of texts: user `00091480` is another one than `91480`, and pins are p0 to p2."""
    with EventLogWriter(tmp_path / "own", VERSION) as writer:
        writer.pins(pins())
        writer.users({**users(), "user_id": ["00091480", "91480"]})
        for day in range(1, 8):
            names = {"u0": "00091480", "u1": "91480"}
            writer.impressions(shown_on(day).replace({"user_id": names}))
            writer.actions(acted_on(day).replace({"user_id": names}))
    recipe = tmp_path / "own.yaml"
    days = "training_days: 2, embargo_days: 1, holdout_days: 1, history_days: 5, core_days: 4"
    recipe.write_text(
        f"extends: smoke\nsnapshot: {{{days}, popularity_days: 3, embedding_version: {VERSION}}}\n"
    )
    return str(tmp_path / "own")


def own(log: str, request: str) -> dict[str, Any]:
    recipe = str(Path(log).parent / "own.yaml")
    return yaml.safe_load(said("--request", request, log, "--recipe", recipe).output)


def test_ids_are_told_with_the_texts_that_they_were_made_from(own_log: str) -> None:
    for name, request in (("00091480", "6-0"), ("91480", "6-1")):
        told = own(own_log, request)
        assert (told["request_id"], told["user"]) == (request, f"{id_of(name)} ({name!r})")
    assert f"{id_of('p1')} ('p1')" in {each["pin"] for each in told["candidates"]}
    assert f"{id_of('p2')} ('p2')" in {each["pin"] for each in told["actions"]}


def test_a_request_is_shown_as_of_the_log_s_end_where_that_holds_it(own_log: str) -> None:
    """The day after the log's last is the 8th: its windows are the 3rd and 4th, and the 6th."""
    for request, split, day in (
        ("4-0", "training", 8),
        ("6-0", "holdout", 8),
        ("5-0", "holdout", 7),
        ("7-0", "holdout", 9),
    ):
        told = own(own_log, request)
        assert (told["split"], told["as_of"]) == (split, f"2024-01-0{day}")
