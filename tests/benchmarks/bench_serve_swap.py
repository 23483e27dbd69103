"""`homefeed serve` under load while the champion moves: 100 times at once, then for half an hour.

Four connections ask for the same ranking again and again, in the half hour at four fifths of their
rate. Every answer is held against what the version that it names says of the request: a mixture of
two would be neither's. Then the log is read: each answer must be in it, once.
"""

import itertools
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
from record import Row, row

from support.desk import Desk
from support.mlflow_server import mlflow_server
from support.own_tables import give_log
from support.rankers import Ranker, predictor_of, utility
from support.ranking import ranking_request
from support.serving import beside, wait_until

NUM_MOVES, SOAK_S, REST = 100, 1800, 0.25
NUM_CANDIDATES, NAME = 30, "asked-"


def measure() -> list[Row]:
    """Return the longest pause of many moves, and of a longer time with some."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as name:
        with mlflow_server(Path(name) / "mlflow") as url:
            desk = Desk(Path(name), url)
            give_log(log := desk.folder / "log")
            models = desk.promote_two()
            ranker = Ranker(desk, "--log", str(log))
            with ranker.process.running():
                rows = [
                    _row("serve_swap", ranker, models, NUM_MOVES, 0.0),
                    _row("serve_soak", ranker, models, SOAK_S // 10, 10.0),
                ]
            names = pq.read_table(log / "impressions", columns=["request_id"])["request_id"]
            counts = pc.value_counts(names.filter(pc.starts_with(names, NAME))).field("counts")
            once = pc.sum(pc.equal(counts, NUM_CANDIDATES)).as_py()
            told = f"{once:,} of {rows[0].rows + rows[1].rows:,} answers are in the log once"
            return [rows[0], rows[1].model_copy(update={"note": f"{rows[1].note}; {told}"})]


def _row(name: str, ranker: Ranker, models: Any, num_moves: int, pause_s: float) -> Row:
    predictors = {each.bundle_digest: predictor_of(ranker.desk, each) for each in models}
    request = ranking_request(next(iter(predictors.values())).config, NUM_CANDIDATES)
    request["candidates"]["pin_id"] = [f"p{n}" for n in range(NUM_CANDIDATES)]
    request["user"]["id"] = "u0"
    expected = {digest: utility(each, request) for digest, each in predictors.items()}
    seen, is_over = list[tuple[int, bool, float]](), threading.Event()

    def ask() -> None:
        client = httpx.Client(base_url=ranker.client.base_url, timeout=60)
        while not is_over.is_set():
            started = time.perf_counter()
            asked = request | {"request_id": f"{NAME}{uuid.uuid4()}"}
            response = client.post("/rank", json=asked)
            took_s = time.perf_counter() - started
            answer = response.json().get("answers", [{}])[0]
            wanted = expected.get(answer.get("bundle_digest"), np.zeros(0))
            found = np.array(answer.get("utility", []))
            is_same = found.shape == wanted.shape and np.allclose(found, wanted, atol=1e-6)
            seen.append((response.status_code, bool(is_same), took_s))
            is_over.wait(took_s * REST if pause_s else 0)

    assert ranker.process.process is not None
    process, memory = psutil.Process(ranker.process.process.pid), list[int]()
    started = time.perf_counter()
    with beside(*[ask] * 4, end=is_over.set):
        for number, to in zip(range(num_moves), itertools.cycle(("1", "2"))):
            ranker.desk.rollback(to, days=10 + number / 1000 + (100 if pause_s else 0))
            wait_until(lambda to=to: ranker.version() == to, 60)
            memory.append(process.memory_info().rss)
            time.sleep(pause_s)
    failed, mixed = sum(status != 200 for status, *_ in seen), sum(not same for _, same, _ in seen)
    took = [took_s for *_, took_s in seen]
    lasted_s, mib = time.perf_counter() - started, np.array(memory) / 2**20
    by_quarter = ", ".join(f"{np.median(each):.0f}" for each in np.array_split(mib, 4))
    return row(
        name,
        max(took),
        "s for the longest answer",
        spread=f"{failed} failed, {mixed} mixtures; median {np.median(took):.3f} s",
        rows=len(seen),
        note=f"{num_moves} moves in {lasted_s:.0f} s; memory {by_quarter} MiB by quarter of it "
        f"(medians), {mib.max():.0f} at most",
    )
