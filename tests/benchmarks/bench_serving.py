"""`homefeed serve` beside `mlflow models serve`: the same bundle, cores and requests.

Requests of 30 candidates and 100 actions with the sample's recipe; the weights are random, which
changes no time. A client in one process asks with 1 and with 16 connections. The peer gets the
tensors that its model takes, and its better number of workers counts.
"""

import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import torch
import uvicorn
from record import Row, row

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.contracts.time import Window
from pipelines.recipes import completejourney
from pipelines.serving.champion import Served
from pipelines.serving.server import Server
from pipelines.settings import Settings
from support.bundles import described
from support.ranking import requests_of
from support.serving import Process, free_port
from training.bundle import mlflow_model, serving_model
from training.bundle.files import load_bundle, read_golden, write_bundle
from training.data.batches import MODEL_INPUTS, Batch, for_scoring
from training.model.ranker import Ranker

NUM_CANDIDATES, NUM_ACTIONS, NUM_CONNECTIONS, SECONDS = 30, 100, 16, 20
AS_OF = datetime(2017, 6, 12, tzinfo=UTC)


def measure() -> list[Row]:
    """Return requests a second and times of answers, of both."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as name:
        folder = Path(name)
        bundle = write_random_bundle(folder / "bundle")
        config = load_bundle(bundle).config
        golden, _ = read_golden(bundle, len(config.features.heads))
        given = requests_of(golden, config)[0]
        ours = _measured(_ours(folder, bundle), "/rank", given | {"request_id": "r"})
        tensors = {each: getattr(golden, each).numpy() for each in MODEL_INPUTS}
        body = {"inputs": {each: values.tolist() for each, values in tensors.items()}}
        model = _logged(folder, bundle)
        peers = [_measured(_peer(folder, model, num), "/invocations", body) for num in (1, 2)]
    peer = max(peers, key=lambda found: found["rate"])
    fields = {"rows": NUM_CANDIDATES, "seed": "0"}
    said = f"p50 {ours['p50']:.0f} ms, p99 {ours['p99']:.0f} ms with {NUM_CONNECTIONS} connections"
    alone = f"p50 {ours['one_p50']:.1f} ms, p99 {ours['one_p99']:.1f} ms with one"
    return [
        row(
            "serve_requests_per_s",
            ours["rate"],
            "requests/s",
            ratio=ours["rate"] / peer["rate"],
            peer=f"mlflow models serve at its better number of workers, {peer['rate']:.1f}/s",
            spread=f"{said}; {alone}",
            note=f"own code {ours['own']:.0%} beyond the passes; the peer's p50 "
            f"{peer['one_p50']:.1f} ms with one connection",
            **fields,
        ),
    ]


def write_random_bundle(folder: Path) -> Path:
    """Write a bundle of the sample's recipe whose first golden request is the one that is asked."""
    torch.manual_seed(0)
    config = completejourney()
    ranker = Ranker(config.features, config.model, EMBEDDING_DIM)
    said = described(
        config,
        0,
        embedding_dim=EMBEDDING_DIM,
        as_of=AS_OF,
        training=Window(start=datetime(2017, 5, 1, tzinfo=UTC), end=AS_OF),
        snapshot_digest="s" * 64,
    )
    write_bundle(folder, ranker, said, _request(said.features, config.model.max_actions))
    return folder


def _request(features: Any, longest: int) -> Batch:
    num_actions = min(NUM_ACTIONS, longest)
    return for_scoring(
        {
            "action_types_RS": torch.randint(1, len(features.action_types) + 1, (1, num_actions)),
            "action_pin_keys_RS": torch.arange(num_actions)[None],
            "action_pins_RSE": torch.randn(1, num_actions, EMBEDDING_DIM),
            "action_ages_ms_RS": torch.arange(1, num_actions + 1)[None] * 3_600_000,
            "users_RE": torch.randn(1, EMBEDDING_DIM),
            "request_of_C": torch.zeros(NUM_CANDIDATES, dtype=torch.int64),
            "candidate_pin_keys_C": torch.arange(NUM_CANDIDATES),
            "candidate_pins_CE": torch.randn(NUM_CANDIDATES, EMBEDDING_DIM),
            "categorical_CG": torch.zeros(NUM_CANDIDATES, len(features.categorical)).long(),
            "numeric_CN": torch.zeros(NUM_CANDIDATES, len(features.numeric_inputs)),
        },
        len(features.heads),
    )


def serve(bundle: str, port: str) -> None:
    """Serve a bundle, as if it were the champion."""
    server = Server(Settings(), Path(bundle).parent / "cache", 1e9)
    model = ModelRef(name="bench", version="1", mlflow_run_id="", as_of=AS_OF,
                     bundle_digest="b" * 64, snapshot_digest="s" * 64)  # fmt: skip
    server.champion.follow = lambda: None  # type: ignore[method-assign]
    server.champion.current = Served(model, load_bundle(Path(bundle)))
    uvicorn.run(server.app(), host="127.0.0.1", port=int(port), log_level="warning")


def _ours(folder: Path, bundle: Path) -> Process:
    port, run = free_port(), str(Path(__file__).with_name("run.py"))
    command = [sys.executable, run, "--call", "bench_serving", "serve", str(bundle), f"{port}"]
    return Process(command, folder / "ours.log", f"http://127.0.0.1:{port}/ready")


def _logged(folder: Path, bundle: Path) -> Path:
    mlflow.pyfunc.save_model(
        path=str(folder / "model"),
        python_model=str(serving_model.__file__),
        artifacts={"bundle": bundle.as_uri()},
        pip_requirements=["mlflow"],
        signature=mlflow_model._signature(bundle),
    )
    return folder / "model"


def _peer(folder: Path, model: Path, num_workers: int) -> Process:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-p", f"{port}"]
    command += ["--env-manager", "local", "-w", f"{num_workers}"]
    found = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = folder / f"peer{num_workers}.log"
    return Process(command, log, f"http://127.0.0.1:{port}/health", {"env": found})


def _measured(process: Process, place: str, body: dict) -> dict[str, float]:
    """Return rate and times of answers in milliseconds, with one connection and with many."""
    content = json.dumps(body).encode()
    port = int(process.page.rsplit(":", 1)[1].split("/")[0])

    def ask(until: float, times_ms: list[float]) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < until:
            started = time.perf_counter()
            client.request("POST", place, content, {"content-type": "application/json"})
            answer = client.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{place} answered {answer.status}: {said[:500]!r}")
            times_ms.append(1000 * (time.perf_counter() - started))

    with process.running():
        ask(time.perf_counter() + 3, [])
        one = list[float]()
        ask(time.perf_counter() + SECONDS / 2, one)
        many, end = list[float](), time.perf_counter() + SECONDS
        _at_once(lambda: ask(end, many))
        own = _own_share(port) if place == "/rank" else 0.0
    return {
        "rate": len(many) / SECONDS,
        "p50": statistics.median(many),
        "p99": float(np.percentile(many, 99)),
        "one_p50": statistics.median(one),
        "one_p99": float(np.percentile(one, 99)),
        "own": own,
    }


def _at_once(act: Callable[[], None]) -> None:
    threads = [threading.Thread(target=act) for _ in range(NUM_CONNECTIONS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def _own_share(port: int) -> float:
    """Return the time to decode and encode as a share of that of the passes."""
    told = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in told.splitlines() if not line.startswith("#"))
    seconds = {
        step: float(lines[f'homefeed_serving_seconds_sum{{step="{step}"}}'])
        for step in ("decode", "encode", "score")
    }
    requests = float(lines["homefeed_serving_pass_requests_sum"])
    passes = seconds["score"] * float(lines["homefeed_serving_pass_requests_count"]) / requests
    return (seconds["decode"] + seconds["encode"]) / passes
