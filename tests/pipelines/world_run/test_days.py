"""A world that answers: one luck for every policy, whole days, no skew of asking and learning."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.dataset as ds
import pytest
import uvicorn
from typer.testing import CliRunner

from pipelines import storage
from pipelines.cli.main import app
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.event_log.log_files import open_event_log
from pipelines.recipes import world as world_recipe
from pipelines.serving.champion import Served
from pipelines.serving.server import Server
from pipelines.settings import Settings
from pipelines.snapshot.build import build_of
from pipelines.snapshot.plan import plan_of
from pipelines.sources.world.draws import describe
from pipelines.storage import to_uri
from pipelines.world_run.days import (
    TRUTH_DAYS,
    DayOfWorld,
    DrawnWorld,
    read_world,
    replay,
    run_days,
)
from pipelines.world_run.policies import Drawn, Model, Optimum
from support.bundles import chance_bundle
from support.judgements import make_model
from support.serving import beside, free_port, wait_until
from training.bundle.files import load_bundle
from training.bundle.score_split import score_split
from training.data.reader import SnapshotReader

SIZES = {"num_users": 80, "num_days": 16, "num_pins": 200, "pin_lifetime_days": 6.0, "seed": 3}
WORLD = read_world("file:///nothing", **SIZES)
START = datetime(2024, 1, 1, tzinfo=UTC)


def recipe() -> RunConfig:
    base = world_recipe()
    days = {"training_days": 5, "holdout_days": 3, "embargo_days": 1, "history_days": 14}
    days |= {"popularity_days": 3, "num_shards": 2}
    return base.model_copy(update={"snapshot": base.snapshot.model_copy(update=days)})


def run(folder: Path, num_days: int, policy: Any = None) -> list[DayOfWorld]:
    """Run some more days; no policy: the drawn order."""
    return list(run_days(to_uri(folder), WORLD, lambda _: policy or Drawn(), num_days))


def truth_of(folder: Path) -> list[DayOfWorld]:
    place = storage.join(to_uri(folder), TRUTH_DAYS)
    names = storage.list_names(place)
    return [storage.read_model(storage.join(place, name), DayOfWorld) for name in names]


def rows_of(folder: Path) -> dict[str, list[dict]]:
    tables = ("impressions", "actions", "users", "pins")
    found = {name: ds.dataset(folder / name, partitioning=None).to_table() for name in tables}
    return {name: sorted(map(str, rows.to_pylist())) for name, rows in found.items()}  # type: ignore[misc]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days in the order in which candidates were drawn."""
    folder = tmp_path_factory.mktemp("world") / "log"
    run(folder, 12)
    return folder


def test_what_is_expected_is_what_is_drawn_on_average(log: Path) -> None:
    days = truth_of(log)
    expected, drawn = sum(d.expected_repins for d in days), sum(d.num_repins for d in days)
    assert len(days) == 12 and expected > 400
    assert abs(drawn - expected) < 4 * np.sqrt(expected)


class Falling(Drawn):
    """Falls over in the middle of a day."""

    num_learned = 0

    def learn(self, *_: Any) -> None:
        self.num_learned += 1
        if self.num_learned == 2:
            raise InterruptedError


def test_a_day_is_whole_or_not_there_and_a_world_goes_on_as_if_it_had_never_stopped(
    log: Path, tmp_path: Path
) -> None:
    run(tmp_path / "log", 5)
    before = rows_of(tmp_path / "log")
    with pytest.raises(InterruptedError):
        run(tmp_path / "log", 3, Falling())
    assert rows_of(tmp_path / "log") == before
    run(tmp_path / "log", 7)
    assert rows_of(tmp_path / "log") == rows_of(log)
    assert len(run(tmp_path / "log", 9)) == 4, "a world of 16 days ends"
    with pytest.raises(ConfigurationError, match="expected a world that was run, of {'seed': 4}"):
        read_world(to_uri(tmp_path / "log"), seed=4)


def test_the_optimum_earns_more_from_the_same_requests_and_learns_from_a_log_what_it_had_learned(
    log: Path, tmp_path: Path
) -> None:
    drawn = DrawnWorld.of(WORLD)
    optimum = Optimum(drawn.users)
    best = run(tmp_path / "log", 12, optimum)
    usual = truth_of(log)
    assert [day.num_requests for day in best] == [day.num_requests for day in usual]
    assert sum(d.expected_repins for d in best) > 1.05 * sum(d.expected_repins for d in usual)
    top, usual_top = (sum(d.expected_in_top_3 for d in of) for of in (best, usual))
    assert top > 1.3 * usual_top
    again = Optimum(drawn.users)
    replay(drawn, again, open_event_log(to_uri(tmp_path / "log")))
    rows = next(drawn.rounds(12))
    scores = []
    for each in (optimum, again):
        shown = describe(drawn.catalogue, drawn.requests.take(rows))
        scores.append(each.scores(drawn.ids, shown, None))
    assert np.array_equal(*scores)


class Noting(Model):
    """Keeps what it said of each request, by pin."""

    said: dict[str, np.ndarray]

    def scores(self, ids: Any, shown: Any, asked: Any) -> np.ndarray:
        found = super().scores(ids, shown, asked)
        for name, pins, scores in zip(
            ids.to_pylist(), shown.requests.pin_RC.tolist(), found, strict=True
        ):
            self.said |= {f"{name} {pin}": s for pin, s in zip(pins, scores.tolist(), strict=True)}
        return found


@pytest.fixture(scope="module")
def bundle(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a recipe that asks for counts, ages and states, and was never trained."""
    folder, config = tmp_path_factory.mktemp("bundle"), recipe()
    plan = plan_of(config, START + timedelta(days=12))
    snapshot = build_of(plan, to_uri(log), to_uri(folder / "snapshots"))
    return chance_bundle(folder / "bundle", snapshot, config, seed=5)


def test_a_model_is_asked_what_a_later_snapshot_says_it_was_asked(
    log: Path, bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(log, tmp_path / "log")
    predictor, ref = load_bundle(bundle), make_model("1", START)
    noting = Noting(predictor, ref)
    noting.said = {}
    run(tmp_path / "log", 3, noting)
    plan = plan_of(recipe(), START + timedelta(days=16))
    snapshot = build_of(plan, to_uri(tmp_path / "log"), to_uri(tmp_path / "snapshots"))
    place = storage.local_path(snapshot.uri)
    scores = score_split(bundle, snapshot, place, SPLIT_HOLDOUT).ranking_score
    reader = SnapshotReader(snapshot.shards, place, snapshot.features, 1)
    index = reader.index(SPLIT_HOLDOUT)
    requests = np.repeat(reader.request_column(index, "request_id"), index.num_examples_M)
    pins = reader.pins["pin_id"][reader.example_column(index, "pin_row")]
    names = [f"{name} {pin}" for name, pin in zip(requests, pins, strict=True)]
    assert len(names) > 500 and len(set(noting.said)) == len(names)
    assert np.allclose([noting.said[name] for name in names], scores, atol=1e-6)


@contextmanager
def serving(bundle: Path, home: Path) -> Iterator[str]:
    """A server of a bundle, without a registry."""
    server, port = Server(Settings(), home, 60.0), free_port()
    server.champion.current = Served(make_model("1", START), load_bundle(bundle))
    server.champion.run = lambda: None  # type: ignore[method-assign]
    running = uvicorn.Server(uvicorn.Config(server.app(), port=port, log_level="warning"))
    with beside(running.run, end=lambda: setattr(running, "should_exit", True)):
        wait_until(lambda: running.started)
        yield f"http://127.0.0.1:{port}"


def test_a_server_gives_the_same_days(log: Path, bundle: Path, tmp_path: Path) -> None:
    for name in ("here", "there"):
        shutil.copytree(log, tmp_path / name)
    predictor = load_bundle(bundle)
    here = run(tmp_path / "here", 2, Model(predictor, make_model("1", START)))
    with serving(bundle, tmp_path / "home") as place:
        there = run(tmp_path / "there", 2, Model(predictor, make_model("1", START), place))
        other = make_model("2", START).model_copy(update={"bundle_digest": "d" * 64})
        with pytest.raises(ConfigurationError, match="answers a request with 200, version 1; exp"):
            run(tmp_path / "there", 1, Model(predictor, other, place))
    assert here == there and rows_of(tmp_path / "here") == rows_of(tmp_path / "there")


def test_the_command_says_a_line_a_day_and_a_new_world_needs_no_model(tmp_path: Path) -> None:
    words = ["world", "run", "--to", str(tmp_path / "log"), "--days", "2", "--policy"]
    sizes = [f"--size={name}={value}" for name, value in SIZES.items()]
    done = CliRunner().invoke(app, [*words, "random", *sizes], catch_exceptions=False)
    first, second = done.output.splitlines()
    assert first.startswith("2024-01-01  random: ") and "expected repins (" in second
    value = json.loads(CliRunner().invoke(app, [*words, "random", "--json"]).output)
    assert [each["day"] for each in value] == ["2024-01-03", "2024-01-04"]
    refused = CliRunner().invoke(app, [*words, "random", "--size", "users=3"])
    assert isinstance(refused.exception, ConfigurationError)
    assert "expected NAME=VALUE with a name of num_users," in str(refused.exception)
    bare = run_days(
        to_uri(tmp_path / "new"),
        WORLD,
        lambda _: Model(cast(Any, SimpleNamespace(config=object())), make_model("1", START)),
        1,
    )
    with pytest.raises(ConfigurationError, match="begins with the policy random or optimum"):
        next(bare)
