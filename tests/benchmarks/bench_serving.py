"""`homefeed serve` beside `mlflow models serve`: the same bundle, cores and requests.

Requests of 30 candidates and 100 actions with the sample's recipe, which takes 50 otherwise; the
weights are random, which changes no time. A client in one process asks with 1 and with 16
connections, and then at random times, half as often as the server could answer. Servers take
turns, because the machine may have other work. The peer gets the tensors that its model takes, and
its better number of workers counts.
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
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
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

NUM_CANDIDATES, NUM_ACTIONS, NUM_CONNECTIONS, SECONDS, NUM_TURNS = 30, 100, 16, 4, 5
AS_OF = datetime(2017, 6, 12, tzinfo=UTC)


def measure() -> list[Row]:
    """Return requests a second and times of answers, of both, asked in turn."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        bundle = write_random_bundle(folder / "bundle")
        config = load_bundle(bundle).config
        golden, _ = read_golden(bundle, len(config.features.heads))
        given = requests_of(golden, config)[0] | {"request_id": "r"}
        tensors = {each: getattr(golden, each).numpy() for each in MODEL_INPUTS}
        body = {"inputs": {each: values.tolist() for each, values in tensors.items()}}
        model = _logged(folder, bundle)
        ours = Asked(_ours(folder, bundle), "/rank", given)
        peers = [Asked(_peer(folder, model, num), "/invocations", body) for num in (1, 2)]
        for each in (ours, *peers):
            stack.enter_context(each.process.running())
            _at_once([lambda each=each: each.ask(_until(2), [])] * NUM_CONNECTIONS)
        allowed, ratios = list[float](), list[float]()
        for _ in range(NUM_TURNS):
            allowed.append(call("bench_serving", "ceiling", str(bundle)).told)
            for each in (ours, *peers):
                each.crowd()
            ratios.append(ours.rates[-1] / max(each.rates[-1] for each in peers))
        peer = max(peers, key=lambda each: median(each.rates))
        own, alone, half = *ours.alone(), ours.half_load()
    return [
        row(
            "serve_requests_per_s",
            median(ours.rates),
            "requests/s",
            ratio=median(ratios),
            peer=f"mlflow models serve, its better number of workers, {median(peer.rates):.1f}/s",
            spread=f"ratio {min(ratios):.2f} to {max(ratios):.2f} over {NUM_TURNS} turns; CPU "
            f"{median(ours.cpu_ms):.1f} ms a request, the peer's {median(peer.cpu_ms):.1f}",
            note=f"load average {os.getloadavg()[1]:.0f}; own code {own:.0%} beyond the passes, "
            f"which alone would allow {median(allowed):.0f}/s; p50 and p99 with one connection "
            f"{alone[0]:.1f} and {alone[1]:.1f} ms, half load {half[0]:.1f} and {half[1]:.1f} ms",
            rows=NUM_CANDIDATES,
            seed="0",
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


@dataclass
class Asked:
    """A server that is asked the same again and again, and what was seen of it, by turn."""

    process: Process
    place: str
    body: dict
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.process.page.rsplit(":", 1)[1].split("/")[0])

    def ask(self, starts: Iterable[float], times_ms: list[float]) -> None:
        """Ask at these times, or later where an answer takes longer; add the answers' times."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = json.dumps(self.body).encode()
        for start in starts:
            time.sleep(max(0.0, start - time.perf_counter()))
            client.request("POST", self.place, content, {"content-type": "application/json"})
            answer = client.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{self.place} answered {answer.status}: {said[:500]!r}")
            times_ms.append(1000 * (time.perf_counter() - start))

    def crowd(self) -> None:
        """Ask with all connections at once."""
        times, cpu_s = list[float](), _cpu_s(self.process)
        _at_once([lambda: self.ask(_until(SECONDS), times)] * NUM_CONNECTIONS)
        self.rates.append(len(times) / SECONDS)
        self.cpu_ms.append(1000 * (_cpu_s(self.process) - cpu_s) / len(times))

    def alone(self) -> tuple[float, tuple[float, float]]:
        """Return time beside the passes as a share of theirs; p50 and p99 with one connection."""
        before, times = _seconds(self.port), list[float]()
        self.ask(_until(SECONDS), times)
        spent = {step: told - before[step] for step, told in _seconds(self.port).items()}
        own = (spent["decode"] + spent["encode"] + spent["wait"]) / spent["score"]
        return own, (float(np.percentile(times, 50)), float(np.percentile(times, 99)))

    def half_load(self) -> tuple[float, float]:
        """Return p50 and p99 where requests come at random, half as many as could be answered."""
        gaps = np.random.default_rng(0).exponential(2 / median(self.rates), size=5_000)
        starts = np.cumsum(gaps)
        shared = iter((time.perf_counter() + 0.1 + starts[starts < 3 * SECONDS]).tolist())
        times = list[float]()
        _at_once([lambda: self.ask(_one_by_one(shared), times)] * (2 * NUM_CONNECTIONS))
        return float(np.percentile(times, 50)), float(np.percentile(times, 99))


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
        for _ in _until(SECONDS):
            score(predictor, requests)
            num.append(len(requests))

    _at_once([score_all] * cores)
    return sum(num) / SECONDS
