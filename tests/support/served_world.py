"""A log whose holdout a champion ranked, request by request, and clients that tell it other things.

What is served is written as a server's log writes it, one share of the requests otherwise: so a
test and a benchmark know what `pipelines.log_days.skew` has to find.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.contracts.config import RunConfig
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.serving.batching import Answer
from pipelines.serving.served_log import line_of, rows_of
from pipelines.snapshot.build import write_snapshot
from support.bundles import chance_bundle
from support.runs import make_run
from support.worlds import write_planted_world
from training.bundle.files import Predictor, load_bundle
from training.bundle.ranking_requests import Decoder, requests_of, score
from training.data.reader import SnapshotReader, chunks
from validation.model_gate.facts import Side

Request = dict[str, Any]


class ServedWorld:
    """A log whose holdout was ranked by a champion, request by request."""

    def __init__(self, folder: Path, recipe: RunConfig | None = None, num_users: int = 400) -> None:
        self.log = folder / "event_log"
        write_planted_world(self.log, num_users=num_users, requests_per_user_day=1.0, candidates=6)
        pins = pq.read_table(path := self.log / "pins" / "part-0.parquet")
        topics = pa.array([f"topic {n % 3}" for n in range(len(pins))])
        pq.write_table(pins.append_column("topic", topics), path)
        self.run = make_run(folder, recipe)
        snapshot, config = write_snapshot(self.run), self.run.config
        place = storage.local_path(snapshot.uri)
        bundles = [chance_bundle(folder / f"{n}", snapshot, config, seed=n) for n in (1, 2)]
        self.mine, self.other = map(load_bundle, bundles)
        model: Any = SimpleNamespace(version="7", label="ranker v7")
        self.side = Side(model, bundles[0], snapshot, place)
        reader = SnapshotReader(snapshot.shards, place, config.features, config.model.max_actions)
        index, self.asked = reader.index(SPLIT_HOLDOUT), list[Request]()
        for part in chunks(index, 2048):
            pins = reader.pins["pin_id"][reader.example_column(part, "pin_row")]
            owns = np.split(pins, np.cumsum(part.num_examples_M)[:-1])
            names = reader.request_column(part, "request_id").tolist()
            given = requests_of(reader.make_batch(part), self.mine.config)
            for name, each, own in zip(names, given, owns, strict=True):
                each["candidates"]["pin_id"] = own.tolist()
                self.asked.append(each | {"request_id": name})
        self.sound = self.rows(self.asked, self.mine)

    def rows(self, asked: list[Request], by: Predictor) -> pa.Table:
        """Return the log's rows of some requests, as a server of version 7 writes them."""
        decoder, lines = Decoder(by.config), list[bytes]()
        served: Any = SimpleNamespace(model=SimpleNamespace(version="7"))
        for first in range(0, len(asked), 200):
            decoded = [decoder.decode(json.loads(json.dumps(r))) for r in asked[first:][:200]]
            for request, ranked in zip(decoded, score(by, decoded), strict=True):
                lines.append(line_of(Answer(request, ranked, served, 0.0, 0.0, 1), 0))
        return pa.table(rows_of(lines, 0))

    def plant(self, cause: str, share: float, seed: int) -> None:
        """Write what was served, a share of it with a skew."""
        rng = np.random.default_rng(seed)
        some = [each for each in self.asked if each["actions"] and rng.random() < share]
        for each in (planted := json.loads(json.dumps(some))):
            skewed(each, cause)
        is_planted = pc.is_in(self.sound["request_id"], pa.array([r["request_id"] for r in some]))
        rows = self.rows(planted, self.other if cause == "model" else self.mine)
        self.write(self.sound.filter(pc.invert(is_planted)), rows)

    def write(self, *parts: pa.Table) -> None:
        """Write what was served into the log's impressions."""
        told = pa.concat_tables(parts).select(["request_id", "pin_id", *COLUMNS])
        first = f"day={self.side.snapshot.holdout.start:%Y-%m-%d}"
        files = sorted(self.log.glob("impressions/*/*.parquet"))
        for path in (each for each in files if each.parent.name >= first):
            table = pq.read_table(path, partitioning=None)
            table = table.drop_columns([n for n in COLUMNS if n in table.column_names])
            found = table.join(told, keys=["request_id", "pin_id"], join_type="left outer")
            pq.write_table(found.sort_by("known_at"), path)


COLUMNS = ("model_version", "served_score", "served_marks")


def skewed(request: Request, cause: str) -> None:
    """Change what a client tells; a model that answers in the champion's place changes nothing."""
    actions, candidates = request["actions"], request["candidates"]
    match cause:
        case "actions":  # The client had not heard of the newest one.
            request["actions"] = {name: values[1:] for name, values in actions.items()}
        case "embeddings":  # The client's are of an older version.
            for table in (actions, candidates):
                table["embedding"] = [[0.5 - v for v in reversed(e)] for e in table["embedding"]]
        case "features":  # The client counts something else.
            name = next(n for n in candidates if n not in ("pin_id", "embedding"))
            candidates[name] = [v + 2.0 for v in candidates[name]]
        case "ages":  # The client's clock is two days ahead.
            actions["age_ms"] = [age + 172_800_000 for age in actions["age_ms"]]


PLANTED = ("actions", "embeddings", "features", "ages", "model")
