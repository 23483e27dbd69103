"""Served scores against judged ones: the champion ranks served requests again.

A request was ranked by what its client sent; the snapshot tells of the same request what the log
knows. Where the two scores differ, the next model learns from, and is judged by, other numbers than
it will be given. The marks that were logged with a score (`training.bundle.ranking_requests`) tell
which of its inputs differ. Not for logging what is served (`pipelines.serving.served_log`). Tested
in tests/pipelines/log_days/test_skew.py.
"""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.hashing import mix
from pipelines.contracts.judgement import Skew
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.reader import Among, open_file, read_rows
from training.bundle.files import load_bundle, read_config
from training.bundle.ranking_requests import MARK_LENGTH, MARKS, arrays_of, marks_of
from training.bundle.score_split import ranking_score
from training.data.reader import SnapshotReader, chunks

if TYPE_CHECKING:
    from validation.model_gate.facts import Side

MOST_REQUESTS = 2_000
"""Requests that are ranked anew: of one in a hundred that differs, twenty are seen."""
_DRAWN = 5 * MOST_REQUESTS
"""Requests of the holdout that are looked for in the log: others may have been ranked otherwise."""
NOISE, RELATIVE_NOISE = 1e-6, 1e-4
"""What two scores of the same inputs may differ by: float32 and a few milliseconds of age."""
_AT_ONCE, _SALT = 2048, 1033
_SCORE, _MARKS, _VERSION = "served_score", "served_marks", "model_version"
Served = dict[tuple[str, int], tuple[float, str]]


def measure_skew(run: ResolvedRun, champion: "Side") -> Skew | None:
    """Return how the champion's served scores of the holdout differ from what the snapshot gives.

    Args:
        run: The cycle.
        champion: Who served, with the snapshot that is computed as its own recipe says.

    Returns:
        None where the log has no score of this champion in the holdout.

    Raises:
        DataContractError: the bundle or the log is damaged.
    """
    event_log = open_event_log(run.event_log_uri)
    config, snapshot = read_config(champion.bundle_dir), champion.snapshot
    # A batch carries labels, so its heads are the snapshot's.
    features = config.features.model_copy(update={"heads": snapshot.features.heads})
    reader = SnapshotReader(
        snapshot.shards, champion.snapshot_dir, features, config.model.max_actions
    )
    index = reader.index(SPLIT_HOLDOUT)
    drawn = np.sort(np.argsort(mix(np.arange(len(index)), _SALT), kind="stable")[:_DRAWN])
    index, heads = index.take(drawn), config.features.heads
    names = reader.request_column(index, "request_id")
    served = _served_rows(event_log, champion, names)
    known = {name for name, _ in served}
    index = index.take(np.flatnonzero([each in known for each in names.tolist()])[:MOST_REQUESTS])
    if len(index) == 0:
        return None
    predictor, causes = load_bundle(champion.bundle_dir), Counter[str]()
    for part in chunks(index, _AT_ONCE):
        batch = reader.make_batch(part)
        scores_CH = predictor.probabilities(batch)
        again_C = ranking_score({h.name: scores_CH[:, n] for n, h in enumerate(heads)}, heads)
        pin_ids = reader.pins["pin_id"][reader.example_column(part, "pin_row")].tolist()
        own, at = reader.request_column(part, "request_id").tolist(), 0
        for name, arrays in zip(own, arrays_of(batch), strict=True):
            found = set[str]()
            for mark in marks_of(arrays):
                score, then = served.get((name, pin_ids[at]), (again_C[at], mark))
                if abs(score - again_C[at]) > NOISE + RELATIVE_NOISE * abs(again_C[at]):
                    found.add(_cause(then, mark))
                at += 1
            causes.update(found)
            causes["any"] += bool(found)
    num_differ = causes.pop("any")
    return Skew(num_requests=len(index), num_differ=num_differ, causes=dict(causes))


def _served_rows(event_log: EventLog, champion: "Side", request_ids: np.ndarray) -> Served:
    """Return score and marks of what the champion served of some requests, by request and pin."""
    holdout, found = champion.snapshot.holdout, Served()
    wanted = Among("request_id", pa.array(request_ids.tolist(), pa.string()))
    for file in event_log.files_between("impressions", holdout.start_ms, holdout.end_ms):
        if not {_SCORE, _VERSION, _MARKS} <= set(open_file(event_log, file).schema.names):
            continue
        columns = ("request_id", "pin_id")
        rows, _ = read_rows(event_log, [file], wanted, [_VERSION, _MARKS], [_SCORE], columns)
        for row in rows.to_pylist():
            if row[_VERSION] == champion.model.version and row[_SCORE] is not None:
                found[row["request_id"], row["pin_id"]] = row[_SCORE], row[_MARKS] or ""
    return found


def _cause(then: str, now: str) -> str:
    """Return what differs: the first input that explains it, or the model."""
    places = range(0, MARK_LENGTH * len(MARKS), MARK_LENGTH)
    differ = {
        name
        for name, at in zip(MARKS, places, strict=True)
        if then[at : at + MARK_LENGTH] != now[at : at + MARK_LENGTH]
    }
    # Another version of embeddings moves those of candidates too; another action does not.
    if "actions" in differ or ("pins of actions" in differ and "embeddings" not in differ):
        return "actions"
    return next((n for n in ("embeddings", "features", "ages") if n in differ), "model")
