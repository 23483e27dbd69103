"""`homefeed serve` as a process beside a real registry: it answers, follows, and goes on."""

import itertools
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines import storage
from pipelines.alerts.transports import read_outbox
from pipelines.registry.evidence import mark_accepted
from pipelines.serving.servers import read_servers
from support.damage import flip_a_byte
from support.desk import Desk
from support.mlflow_server import mlflow_server
from support.own_tables import give_log, record_of, rows_of_log
from support.rankers import Ranker, predictor_of, utility
from support.ranking import arrow_of, ranking_request
from support.served_world import ServedWorld
from support.serving import beside, wait_until
from training.bundle.files import load_bundle

pytestmark = pytest.mark.services
NOW = datetime(2020, 1, 1, tzinfo=UTC)
SCALED = Path(__file__).parents[3] / "docker" / "kubernetes" / "ranker.yaml"
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def desk(tmp_path: Path, tracking_uri: str) -> Desk:
    return Desk(tmp_path, tracking_uri)


@pytest.fixture
def ranker(desk: Desk) -> Iterator[Ranker]:
    """A server whose champion is the first of a desk."""
    desk.promote(desk.cycle(0))
    found = Ranker(desk)
    with found.process.running():
        yield found


def test_a_body_is_answered_request_by_request(ranker: Ranker) -> None:
    desk = ranker.desk
    assert desk.champion is not None
    predictor = predictor_of(desk, desk.champion)
    given = [ranking_request(predictor.config, num, f"r{num}") for num in (3, 30)]
    wrong = {**given[0], "candidats": 1}
    huge = {**given[0], "user": {"embedding": [3e38] * predictor.config.embedding_dim}}
    answered = ranker.rank(given[0], wrong, 7, huge, given[1])
    assert answered.status_code == 200
    one, refused, nothing, too_large, other = answered.json()["answers"]
    for answer, request in ((one, given[0]), (other, given[1])):
        assert (answer["request_id"], answer["status"]) == (request["request_id"], 200)
        assert answer["bundle_digest"] == desk.champion.bundle_digest
        assert np.allclose(answer["utility"], utility(predictor, request), atol=1e-6)
        assert answer["order"] == np.argsort(-np.array(answer["utility"])).tolist()
        assert {*answer["probabilities"]} == {*predictor.config.features.head_names}
    assert {each["status"] for each in (refused, nothing, too_large)} == {422}
    assert too_large["detail"].startswith("a number of the request is too large")
    assert refused["detail"].startswith("candidats is unknown; expected some of request_id")
    assert ranker.rank(wrong).status_code == 422
    headers = {"content-type": ARROW, "accept": ARROW}
    arrow = ranker.client.post("/rank", content=arrow_of(given), headers=headers).content
    rows = pa.ipc.open_stream(arrow).read_all().to_pylist()
    assert [row["order"] for row in rows] == [one["order"], other["order"]]
    metrics = ranker.client.get("/metrics").text
    assert 'homefeed_serving_answers_total{status="200"} 4.0' in metrics
    assert "homefeed_serving_model_version 1.0" in metrics


def test_users_and_pins_are_named_by_their_ids(desk: Desk, tmp_path: Path) -> None:
    served, run = ServedWorld(tmp_path / "served", num_users=60), desk.cycle(0)
    snapshot = served.side.snapshot
    desk.promote(run, desk.register(run, bundle=served.side.bundle_dir))
    storage.write_bytes(profile := (tmp_path / "profile.json").as_uri(), b"{}")
    mark_accepted(run, snapshot, profile)
    whole = next(each for each in served.asked if len(each["actions"].get("age_ms", ())) > 5)
    rows = pq.read_table(served.log / "impressions").to_pylist()
    row = next(row for row in rows if row["request_id"] == whole["request_id"])
    named = ("pin_id", *(each.name for each in served.mine.config.features.numeric))
    given = {"request_id": "by id", "requested_at": row["impressed_at"]}
    given["candidates"] = {name: whole["candidates"][name] for name in named}
    given["user"] = {"id": row["user_id"]}
    with (ranker := Ranker(desk, "--by-id")).process.running():
        assert ranker.ready()["snapshot"] == snapshot.uri
        one, other = ranker.rank(given, whole).json()["answers"]
        assert one["utility"] == pytest.approx(other["utility"], abs=1e-6)
        desk.promote(desk.cycle(1), days=1)
        told = wait_until(lambda: ranker.ready()["trouble"], 30)
        assert "other embeddings, action types or categorical features" in told
        assert ranker.version() == "1" and ranker.rank(given).status_code == 200


def test_the_server_follows_promotion_and_rollback_and_no_request_fails(ranker: Ranker) -> None:
    desk, failed, answered = ranker.desk, list[Any](), list[tuple[str, list[float]]]()
    assert desk.champion is not None
    predictors = {desk.champion.bundle_digest: predictor_of(desk, desk.champion)}
    request = ranking_request(next(iter(predictors.values())).config, 10)
    is_over = threading.Event()

    def ask() -> None:
        client = httpx.Client(base_url=ranker.client.base_url, timeout=30)
        while not is_over.is_set():
            response = client.post("/rank", json=request)
            if response.status_code != 200:
                failed.append(response.text)
                continue
            [answer] = response.json()["answers"]
            answered.append((answer["bundle_digest"], answer["utility"]))

    with beside(ask, ask, ask, end=is_over.set):
        desk.promote(desk.cycle(1), days=1)
        assert desk.champion is not None and desk.champion.version == "2"
        predictors[desk.champion.bundle_digest] = predictor_of(desk, desk.champion)
        wait_until(lambda: ranker.version() == "2", 60)
        desk.rollback()
        wait_until(lambda: ranker.version() == "1", 10)
    assert failed == [] and {digest for digest, _ in answered} == {*predictors}
    expected = {digest: utility(predictor, request) for digest, predictor in predictors.items()}
    assert all(np.allclose(found, expected[digest], atol=1e-6) for digest, found in answered)


def test_a_version_whose_files_were_altered_is_refused_and_the_one_before_goes_on(
    ranker: Ranker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    desk = ranker.desk
    run = desk.cycle(1)
    model = desk.register(run)
    number = desk.client.get_model_version(desk.name, model.version).source.split("/")[-3]
    [weights, *_] = tmp_path_factory.getbasetemp().glob(f"mlflow*/**/{number}/**/*.safetensors")
    ranker.process.send(signal.SIGSTOP)  # It looks when both have happened.
    desk.promote(run, model, days=1)
    flip_a_byte(weights)
    ranker.process.send(signal.SIGCONT)
    told = wait_until(lambda: ranker.ready()["trouble"], 30)
    assert "altered after registration" in told and ranker.version() == "1"
    assert "homefeed_serving_follows_champion 0.0" in ranker.client.get("/metrics").text
    uri = storage.to_uri(desk.where[0])
    [note] = wait_until(lambda: [n for n in read_servers(uri, NOW) if n.troubles], 10)
    assert note.model is not None and note.model.version == "1" and told in note.troubles
    [(_, alert)] = wait_until(lambda: read_outbox(desk.settings), 10)
    assert alert.kind == "serving_fault"
    assert "serving: a version is refused" in alert.title and "altered after" in alert.happened
    desk.rollback()
    wait_until(lambda: not ranker.ready()["trouble"], 30)
    ranker.process.end()
    assert read_servers(uri, NOW) == ()


def test_an_alias_that_a_hand_has_moved_is_not_followed(ranker: Ranker) -> None:
    desk = ranker.desk
    model = desk.register(desk.cycle(1))
    desk.point_at(model.version)
    told = wait_until(lambda: ranker.ready()["trouble"], 30)
    assert "the alias was moved or deleted by something else" in told and ranker.version() == "1"


def test_it_begins_without_the_registry_once_it_had_the_model(tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "mlflow") as url:
        desk = Desk(tmp_path, url)
        desk.promote(desk.cycle(0))
        ranker = Ranker(desk)
        ranker.process.start()
        ranker.process.end(signal.SIGKILL)
    with ranker.process.running():
        assert desk.settings.tracking_uri in ranker.ready()["trouble"]
        [bundle] = tmp_path.glob("bundle-*")
        request = ranking_request(load_bundle(bundle).config)
        assert ranker.rank(request).status_code == 200
    [kept] = (tmp_path / "home" / "serving").glob("*/weights.safetensors")
    flip_a_byte(kept)
    ranker.process.page = f"{ranker.client.base_url}/health"  # it is up, and never ready
    ranker.process.start()
    wait_until(lambda: "digest of its bundle" in ranker.ready()["trouble"], 90)
    assert ranker.client.get("/ready").status_code == 503
    assert ranker.client.get("/health").status_code == 200
    assert ranker.rank(request).status_code == 503
    ranker.process.end()


def test_what_clients_were_answered_is_in_the_log_after_a_kill(desk: Desk) -> None:
    give_log(log := desk.folder / "log")
    desk.promote(desk.cycle(0))
    ranker = Ranker(desk, "--log", str(log), "--log-every", "1")
    assert desk.champion is not None
    config, answered = predictor_of(desk, desk.champion).config, list[str]()
    is_killed = threading.Event()

    def ask(asker: int) -> None:
        client = httpx.Client(base_url=ranker.client.base_url, timeout=30)
        for number in itertools.count():
            request = ranking_request(config, 4, f"{asker}-{number}")
            request["candidates"]["pin_id"] = [f"p{n}" for n in range(4)]
            request["user"]["id"] = f"u{asker}"
            try:
                [answer] = client.post("/rank", json=request).json()["answers"]
            except httpx.HTTPError:
                assert is_killed.is_set()
                return
            assert answer["status"] == 200, answer
            answered.append(answer["request_id"])

    with ranker.process.running(signal.SIGKILL), beside(*(partial(ask, n) for n in range(4))):
        wait_until(lambda: len(answered) > 200 and record_of(log).generation > 2, 60)
        is_killed.set()
        ranker.process.end(signal.SIGKILL)
    with ranker.process.running():
        assert ranker.rank(ranking_request(config)).status_code == 422  # No user is named.
        assert ranker.ready()["log_trouble"] == ""
    rows = [row for row in rows_of_log(log, "impressions") if row.get("model_version") == "1"]
    found = [row["request_id"] for row in rows]
    assert len(found) == 4 * len(set(found)) and {*answered} <= {*found}


def test_one_that_is_told_to_end_answers_what_it_was_asked_and_logs_it(desk: Desk) -> None:
    """The number that chooses how many pods there are is asked of a real server here."""
    give_log(log := desk.folder / "log")
    desk.promote(desk.cycle(0))
    ranker = Ranker(desk, "--log", str(log), "--log-every", "600", "--threads", "1")
    assert desk.champion is not None
    config = predictor_of(desk, desk.champion).config
    given = [ranking_request(config, 30, f"r{number}") for number in range(500)]
    for each in given:
        each["candidates"]["pin_id"] = [f"p{n}" for n in range(30)]
        each["user"]["id"] = "u0"
    *_, scaler = yaml.safe_load_all(SCALED.read_text())
    metric = re.escape(scaler["spec"]["metrics"][0]["pods"]["metric"]["name"])

    def num_waiting() -> float:
        found = re.search(rf"\n{metric} ([\d.]+)", ranker.client.get("/metrics").text)
        assert found is not None
        return float(found[1])

    half, answered = socket.socket(), list[httpx.Response]()
    with ranker.process.running():
        assert ranker.client.get("/health").status_code == 200
        half.connect(("127.0.0.1", ranker.client.base_url.port or 0))
        half.sendall(b"POST /rank HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        client = httpx.Client(base_url=ranker.client.base_url, timeout=60)
        body = {"requests": given}
        with beside(lambda: answered.append(client.post("/rank", json=body))):
            wait_until(lambda: num_waiting() > 1_000)
            ranker.process.end(timeout_s=60)  # It does not wait for the other half.
    assert {each["status"] for each in answered[0].json()["answers"]} == {200}
    rows = [row for row in rows_of_log(log, "impressions") if row.get("model_version") == "1"]
    assert {row["request_id"] for row in rows} == {each["request_id"] for each in given}


def test_bodies_that_are_no_requests_are_refused_and_a_token_is_asked_for(desk: Desk) -> None:
    desk.promote(desk.cycle(0))
    ranker = Ranker(desk, HOMEFEED_SERVING_TOKEN="s3cret")
    with ranker.process.running():
        assert ranker.rank({}).status_code == 401
        headers = {"authorization": "Bearer s3cret"}
        assert ranker.rank({}, **headers).status_code == 422
        for body in (b"", b"\x00" * 100, b"[" * 100_000, json.dumps({"requests": 3}).encode()):
            answer = ranker.client.post("/rank", content=body, headers=headers)
            assert answer.status_code == 422 and answer.json()["detail"].startswith("the body ")
        large = (b" " * (1 << 20) for _ in range(1024))
        try:
            answer = ranker.client.post("/rank", content=large, headers=headers)
            assert answer.status_code == 413
        except httpx.HTTPError:  # it hangs up before all of it was sent
            pass
        assert ranker.client.post("/invocations", content=b"{}").status_code == 404
        assert ranker.client.get("/ready").status_code == 200
    assert "s3cret" not in ranker.process.log.read_text()
