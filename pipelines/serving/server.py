"""The server of `homefeed serve`: MLflow's own scoring server, with routes for ranking requests.

    POST /rank      one request or many, JSON or Arrow; a refused one does not hold up the others
    GET  /health    the process lives           GET /ready    a model has scored its example rows
    GET  /metrics   Prometheus                  GET /version  MLflow's

It answers on this machine alone unless told otherwise, and asks for the token in
HOMEFEED_SERVING_TOKEN where there is one. Tested in tests/pipelines/serving/test_server.py.
"""

import asyncio
import hmac
import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import torch
from fastapi import FastAPI, Request, Response
from mlflow.pyfunc import scoring_server
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipelines import deletion, storage
from pipelines.alerts.compose import compose_serving
from pipelines.alerts.transports import deliver
from pipelines.serving.batching import Answer, Batcher, TooBusyError, TooLateError
from pipelines.serving.champion import Champion, Served
from pipelines.serving.served_log import ServedLog, line_of, now_ms
from pipelines.serving.servers import FOLDER, ServerNote
from pipelines.settings import Settings
from training.bundle.ranking_requests import Decoder, RequestRefusedError, of_arrow, of_json, score

log = logging.getLogger(__name__)
_MOST_WAIT_S = 20
"""How long a thread may end what it does when the server ends."""
ARROW = "application/vnd.apache.arrow.stream"
MAX_BODY_BYTES = 64 << 20
MOST_REQUESTS = 1_000
"""Of one body."""
TOKEN = "HOMEFEED_SERVING_TOKEN"
_STATUS = {RequestRefusedError: 422, TooBusyError: 429, TooLateError: 503}
_SWITCH_S = 0.0005
"""After so long a thread gives Python to one that waits: a pass asks for it at each operation."""
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Measured:
    """What /metrics tells."""

    def __init__(self, champion: Champion, batcher: Batcher) -> None:
        self.registry = own = CollectorRegistry()
        name = "homefeed_serving_{}".format
        self.answers = Counter(name("answers"), "Ranking requests.", ["status"], registry=own)
        self.unlogged = Counter(name("unlogged_answers"), "Sent and not logged.", registry=own)
        self.seconds = Histogram(
            name("seconds"), "Time by step.", ["step"], buckets=_SECONDS, registry=own
        )
        self.requests = Histogram(
            name("pass_requests"), "Of one pass.", buckets=(1, 2, 4, 8, 16, 32), registry=own
        )
        gauges = {
            "waiting_candidates": ("Candidates that wait.", lambda: batcher.num_waiting),
            "follows_champion": ("0: behind the newest move.", lambda: not champion.trouble),
            "model_age_seconds": ("Since its as_of, or NaN.", lambda: _age_s(champion)),
            "model_version": ("In the registry, or 0.", lambda: _version(champion)),
        }
        for each, (told, value) in gauges.items():
            Gauge(name(each), told, registry=own).set_function(value)

    def observe(self, answers: list[Any], encoded_s: float) -> None:
        """Count the answers of a body."""
        self.seconds.labels("encode").observe(encoded_s)
        for each in answers:
            self.answers.labels(_status_of(each)).inc()
            if isinstance(each, Answer):
                self.seconds.labels("wait").observe(each.waited_s)
                self.seconds.labels("score").observe(each.scored_s)
                self.requests.observe(each.num_requests)


def _version(champion: Champion) -> int:
    return int(champion.current.model.version) if champion.current else 0


def _age_s(champion: Champion) -> float:
    served = champion.current
    return time.time() - served.model.as_of.timestamp() if served else float("nan")


class Server:
    """A champion, the requests that wait for it, and what is measured of them.

    Args:
        settings: Whose champion answers.
        cache: Folder for the models' files.
        look_every_s: Seconds between two looks at what should serve.
        served: Where answers are logged; None: nowhere.
        address: Machine and port, for the note in the workspace; without it nobody is told.
        num_threads: How many passes run beside each other; 0: one for each core.
        is_by_id: Whether requests may name users and pins that the newest snapshot has.
    """

    def __init__(
        self,
        settings: Settings,
        cache: Path,
        look_every_s: float,
        served: ServedLog | None = None,
        address: str = "",
        num_threads: int = 0,
        is_by_id: bool = False,
    ) -> None:
        self._settings, self._address, self._since = settings, address, datetime.now(UTC)
        self._note_uri = storage.join(
            settings.workspace_uri, FOLDER, f"{address.replace(':', '-')}.json"
        )
        self._counts_for = timedelta(seconds=60 + 3 * min(look_every_s, 3600))
        self._lost, self._told = "", set[str]()
        self.champion = Champion(settings, cache, look_every_s, self._looked, is_by_id)
        self._num_threads = num_threads or len(os.sched_getaffinity(0))
        self.batcher = Batcher(
            lambda served, requests: score(served.predictor, requests), self._num_threads
        )
        self.measured, self._served = Measured(self.champion, self.batcher), served
        self._token = os.environ.get(TOKEN, "")

    def app(self) -> FastAPI:
        """Return the routes; the server's threads live as long as they are served."""
        # The model of MLflow's route for tensors is asked for a schema alone; the route goes.
        unused = SimpleNamespace(metadata=SimpleNamespace(get_input_schema=lambda: None))
        app: FastAPI = scoring_server.init(cast(Any, unused))
        app.router.routes[:] = [
            each for each in app.router.routes if getattr(each, "path", "") != "/invocations"
        ]
        # Its time limit wraps every request in tasks and streams; a request has its own deadline.
        app.user_middleware.clear()
        app.router.lifespan_context = self._running
        app.get("/ready")(self.ready)
        app.get("/metrics")(self.metrics)
        app.post("/rank")(self.rank)
        return app

    @asynccontextmanager
    async def _running(self, _: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(_SWITCH_S)
        runs = [self.champion.run, *[self._score] * self._num_threads]
        if self._served is not None:
            runs += [self._served.run_writer, self._served.run_adding]
        threads = [threading.Thread(target=run, daemon=True) for run in runs]
        for each in threads:
            each.start()
        yield
        self.champion.stop()
        self.batcher.stop()
        if self._served is not None:
            self._served.stop()
        for each in threads:
            await asyncio.to_thread(each.join, _MOST_WAIT_S)
        if self._address:
            deletion.remove(self._note_uri)

    def _looked(self) -> None:
        """Note in the workspace what is served, and tell people what is wrong, each thing once."""
        if not self._address:
            return
        champion, now = self.champion, datetime.now(UTC)
        troubles = (champion.trouble, self._served.trouble if self._served else "")
        note = ServerNote(
            address=self._address,
            model=champion.current.model if champion.current else None,
            since=self._since,
            counts_until=now + self._counts_for,
            troubles=tuple(filter(None, troubles)),
        )
        wrong = [(about, "a version is refused", said) for about, said in champion.refused.items()]
        if self._lost:
            about = f"{self._address} {self._since.isoformat()}"
            wrong.append((about, "answers are not logged", self._lost))
        try:
            storage.write_bytes(self._note_uri, note.to_record())
            for about, title, said in wrong:
                if about not in self._told:
                    self._told.add(about)
                    alert = compose_serving(self._address, title, about, said, self._settings)
                    deliver(alert, self._settings)
        except Exception as error:  # noqa: BLE001  # Whoever is not told, the server goes on.
            log.warning("the server's note or alert: %s", error)

    def _score(self) -> None:
        """Score in this thread: passes beside each other beat one that is spread over cores."""
        torch.set_num_threads(1)
        self.batcher.run()

    async def ready(self) -> Response:
        """Say which model answers, and why it is not the newest where it is not."""
        served, trouble = self.champion.current, self.champion.trouble
        model = served and served.model.model_dump(mode="json")
        told = {"model": model, "trouble": trouble}
        if served and served.known:
            told["snapshot"] = served.known.snapshot.uri
        if self._served is not None:
            told["log_trouble"] = self._served.trouble
        return _json(told, 200 if served else 503)

    async def metrics(self) -> Response:
        """Return what Prometheus reads."""
        return Response(generate_latest(self.measured.registry), media_type="text/plain")

    async def rank(self, request: Request) -> Response:
        """Answer the ranking requests of a body, each for itself."""
        given = request.headers.get("authorization", "").encode()
        if self._token and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return _json({"detail": "expected the header 'authorization: Bearer <token>'"}, 401)
        if (served := self.champion.current) is None:
            return _json({"detail": f"no model answers yet: {self.champion.trouble}"}, 503)
        started = time.perf_counter()
        try:
            requests = await _requests(request)
        except RequestRefusedError as error:
            self.measured.answers.labels(422).inc()
            return _json({"detail": str(error)}, 422)
        except _TooLargeError:
            return _json({"detail": f"a body has at most {MAX_BODY_BYTES:,} bytes"}, 413)
        waiting = self._submitted(requests, served)
        self.measured.seconds.labels("decode").observe(time.perf_counter() - started)
        futures = [each for each in waiting if isinstance(each, asyncio.Future)]
        found = iter(await asyncio.gather(*futures, return_exceptions=True))
        answers = [next(found) if isinstance(each, asyncio.Future) else each for each in waiting]
        if self._served is not None:
            await self._log(self._served, [each for each in answers if isinstance(each, Answer)])
        ended = time.perf_counter()
        response = _answered(requests, answers, ARROW in request.headers.get("accept", ""))
        self.measured.observe(answers, time.perf_counter() - ended)
        return response

    async def _log(self, served: ServedLog, answers: list[Answer]) -> None:
        """Keep answers for the log before they are sent; count what the disk refuses."""
        started, at_ms = time.perf_counter(), now_ms()
        written = [served.write(line_of(each, at_ms)) for each in answers]
        kept = await asyncio.gather(*map(asyncio.wrap_future, written), return_exceptions=True)
        if lost := [each for each in kept if each is not None]:
            self.measured.unlogged.inc(len(lost))
            self._lost = self._lost or f"At {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {lost[0]}"
        self.measured.seconds.labels("log").observe(time.perf_counter() - started)

    def _submitted(self, requests: list[Any], served: Served) -> list[Any]:
        """Return a future answer for each request, or why it is refused."""
        kinds = self._served.kinds if self._served is not None else {}
        decoder, waiting = Decoder(served.predictor.config, kinds, at := now_ms()), list[Any]()
        for each in requests:
            try:
                whole = served.known.complete(each, at) if served.known else each
                decoded = decoder.decode(whole)
                waiting.append(asyncio.wrap_future(self.batcher.submit(decoded, served)))
            except tuple(_STATUS) as error:
                waiting.append(error)
        return waiting


async def _requests(request: Request) -> list[Any]:
    """Return the requests of a body."""
    is_arrow = request.headers.get("content-type", "").startswith(ARROW)
    found = (of_arrow if is_arrow else of_json)(await _body(request))
    if len(found) > MOST_REQUESTS:
        raise RequestRefusedError(
            f"the body has {len(found):,} requests; expected at most {MOST_REQUESTS:,}"
        )
    return found


class _TooLargeError(Exception):
    """A body is larger than it may be."""


async def _body(request: Request) -> bytes:
    """Return a body; it is not read on where it is too large."""
    body = io.BytesIO()
    async for part in request.stream():
        if body.tell() + len(part) > MAX_BODY_BYTES:
            raise _TooLargeError
        body.write(part)
    return body.getvalue()


def _status_of(answer: Any) -> int:
    return 200 if isinstance(answer, Answer) else _STATUS.get(type(answer), 500)


def _answered(requests: list[Any], answers: list[Any], is_arrow: bool) -> Response:
    """Return the answers in the requests' order; the status is theirs where all were refused."""
    rows = []
    for request, answer in zip(requests, answers, strict=True):
        name = request.get("request_id") if isinstance(request, dict) else None
        row: dict[str, Any] = {"request_id": name if isinstance(name, str) else None}
        row["status"] = _status_of(answer)
        if isinstance(answer, Answer):
            model, ranked = answer.served.model, answer.ranked
            row |= {"model_version": model.version, "bundle_digest": model.bundle_digest}
            row |= {"utility": ranked.utility.tolist(), "order": ranked.order.tolist()}
            row["probabilities"] = {n: of.tolist() for n, of in ranked.probabilities.items()}
        else:
            row["detail"] = str(answer) if row["status"] != 500 else "the model failed on it"
        rows.append(row)
    status = min(row["status"] for row in rows)
    if not is_arrow:
        return _json({"answers": rows}, status)
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Response(sink.getvalue().to_pybytes(), status, media_type=ARROW)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")
