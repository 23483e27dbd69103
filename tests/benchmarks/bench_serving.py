"""`homefeed serve` beside `mlflow models serve`: the same bundle, cores and requests.

Requests of 30 candidates and 100 actions with the sample's recipe, which takes 50 otherwise; the
weights are random, which changes no time. A client in one process asks with 1 and with 16
connections, and then at random times, half as often as the server could answer. The peer gets the
tensors that its model takes, and its better number of workers counts.
"""

import http.client
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import psutil
import torch
import uvicorn
from record import Row, row
from timed import call

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.contracts.time import Window
from pipelines.recipes import completejourney
from pipelines.serving.batching import MOST_AT_ONCE
from pipelines.serving.champion import Served
from pipelines.serving.server import Server
from pipelines.settings import Settings
from support.bundles import described
from support.serving import Process, free_port
from training.bundle import mlflow_model, serving_model
from training.bundle.files import load_bundle, read_golden, write_bundle
from training.bundle.ranking_requests import Decoder, requests_of, score
from training.data.batches import MODEL_INPUTS, Batch, for_scoring
from training.model.ranker import Ranker

NUM_CANDIDATES, NUM_ACTIONS, NUM_CONNECTIONS, SECONDS = 30, 100, 16, 10
AS_OF = datetime(2017, 6, 12, tzinfo=UTC)


def measure() -> list[Row]:
    """Return requests a second and times of answers, of both."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as name:
        folder = Path(name)
        bundle = write_random_bundle(folder / "bundle")
        config = load_bundle(bundle).config
        golden, _ = read_golden(bundle, len(config.features.heads))
        given = requests_of(golden, config)[0]
        allowed = call("bench_serving", "ceiling", str(bundle)).told
        ours = _measured(_ours(folder, bundle), "/rank", given | {"request_id": "r"})
        tensors = {each: getattr(golden, each).numpy() for each in MODEL_INPUTS}
        body = {"inputs": {each: values.tolist() for each, values in tensors.items()}}
        model = _logged(folder, bundle)
        peers = [_measured(_peer(folder, model, num), "/invocations", body) for num in (1, 2)]
    peer = max(peers, key=lambda found: found["rate"])
    fields = {"rows": NUM_CANDIDATES, "seed": "0"}
    half = f"p50 {ours['half_p50']:.0f} ms, p99 {ours['half_p99']:.0f} ms under half load"
    alone = f"p50 {ours['one_p50']:.1f} ms, p99 {ours['one_p99']:.1f} ms with one connection"
    return [
        row(
            "serve_requests_per_s",
            ours["rate"],
            "requests/s",
            ratio=ours["rate"] / peer["rate"],
            peer=f"mlflow models serve at its better number of workers, {peer['rate']:.1f}/s",
            spread=f"{half}; {alone}",
            note=f"own code {ours['own']:.0%} beyond the passes, which alone would allow "
            f"{allowed:.0f}/s; {ours['cpu_ms']:.1f} ms of processor time a request, of the peer's "
            f"{peer['cpu_ms']:.1f}; the peer's p50 {peer['one_p50']:.1f} ms with one connection",
            **fields,
        ),
    ]


def write_random_bundle(folder: Path) -> Path:
    """Write a bundle of the sample's recipe whose first golden request is the one that is asked."""
    torch.manual_seed(0)
    config = completejourney()
    model = config.model.model_copy(update={"max_actions": NUM_ACTIONS})
    config = config.model_copy(update={"model": model})
    ranker = Ranker(config.features, config.model, EMBEDDING_DIM)
    said = described(
        config,
        0,
        embedding_dim=EMBEDDING_DIM,
        as_of=AS_OF,
        training=Window(start=datetime(2017, 5, 1, tzinfo=UTC), end=AS_OF),
        snapshot_digest="s" * 64,
    )
    write_bundle(folder, ranker, said, _request(said.features))
    return folder


def _request(features: Any) -> Batch:
    return for_scoring(
        {
            "action_types_RS": torch.randint(1, len(features.action_types) + 1, (1, NUM_ACTIONS)),
            "action_pin_keys_RS": torch.arange(NUM_ACTIONS)[None],
            "action_pins_RSE": torch.randn(1, NUM_ACTIONS, EMBEDDING_DIM),
            "action_ages_ms_RS": torch.arange(1, NUM_ACTIONS + 1)[None] * 3_600_000,
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
    uvicorn.run(
        server.app(), host="127.0.0.1", port=int(port), log_level="warning", timeout_keep_alive=30
    )


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
    """Return rate and times of answers in milliseconds: alone, with many, and at half the rate."""
    content = json.dumps(body).encode()
    port = int(process.page.rsplit(":", 1)[1].split("/")[0])

    def ask(starts: Iterable[float], times_ms: list[float]) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for start in starts:
            time.sleep(max(0.0, start - time.perf_counter()))
            client.request("POST", place, content, {"content-type": "application/json"})
            answer = client.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{place} answered {answer.status}: {said[:500]!r}")
            times_ms.append(1000 * (time.perf_counter() - start))

    found = {}
    with process.running():
        ask(_until(3), [])
        before = _seconds(port) if place == "/rank" else {}
        ask(_until(SECONDS / 2), one := list[float]())
        if place == "/rank":
            spent = {step: told - before[step] for step, told in _seconds(port).items()}
            found["own"] = (spent["decode"] + spent["encode"] + spent["wait"]) / spent["score"]
        _at_once([lambda: ask(_until(3), [])] * NUM_CONNECTIONS)
        many, cpu_s = list[float](), _cpu_s(process)
        _at_once([lambda: ask(_until(SECONDS), many)] * NUM_CONNECTIONS)
        rate = len(many) / SECONDS
        found["cpu_ms"] = 1000 * (_cpu_s(process) - cpu_s) / len(many)
        gaps = np.random.default_rng(0).exponential(2 / rate, size=int(SECONDS * rate / 2))
        starts = time.perf_counter() + 0.1 + np.cumsum(gaps)
        half, shared = list[float](), iter(starts.tolist())
        _at_once([lambda: ask(_one_by_one(shared), half)] * (2 * NUM_CONNECTIONS))
    for name, times in (("one", one), ("many", many), ("half", half)):
        found[f"{name}_p50"], found[f"{name}_p99"] = np.percentile(times, (50, 99)).tolist()
    return found | {"rate": rate}


def _cpu_s(process: Process) -> float:
    """Return the processor time of a server and of what it has started, in seconds."""
    assert process.process is not None
    first = psutil.Process(process.process.pid)
    found = [each.cpu_times() for each in (first, *first.children(recursive=True))]
    return sum(each.user + each.system for each in found)


def _until(seconds: float) -> Iterator[float]:
    """Yield now, again and again, for so long."""
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        yield now


_TAKING = threading.Lock()


def _one_by_one(shared: Iterator[float]) -> Iterator[float]:
    """Yield from an iterator that several threads share."""
    while True:
        with _TAKING:
            found = next(shared, None)
        if found is None:
            return
        yield found


def _at_once(acts: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(acts)) as pool:
        for each in [pool.submit(act) for act in acts]:
            each.result()


def _seconds(port: int) -> dict[str, float]:
    """Return what each step has taken so far."""
    told = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in told.splitlines() if not line.startswith("#"))
    steps = ("decode", "encode", "score", "wait")
    return {e: float(lines.get(f'homefeed_serving_seconds_sum{{step="{e}"}}', 0)) for e in steps}


def ceiling(bundle: str) -> float:
    """Return how many requests a second the passes alone would allow, on all cores at once."""
    torch.set_num_threads(1)
    predictor = load_bundle(Path(bundle))
    golden, _ = read_golden(Path(bundle), len(predictor.config.features.heads))
    decoder = Decoder(predictor.config)
    given = requests_of(golden, predictor.config)[0] | {"request_id": "r"}
    requests = [decoder.decode(given)] * (MOST_AT_ONCE // NUM_CANDIDATES)
    num, cores = list[int](), len(os.sched_getaffinity(0))

    def score_all() -> None:
        torch.set_num_threads(1)
        for _ in _until(SECONDS / 2):
            score(predictor, requests)
            num.append(len(requests))

    _at_once([score_all] * cores)
    return sum(num) / (SECONDS / 2)
