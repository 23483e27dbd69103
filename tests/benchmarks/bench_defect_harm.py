"""What each planted defect does to the model, and whether the data gate stops it.

    gate_harmful_not_critical    how many defects move the target metric by more than 1 % and are
                                 not critical

A defect that is critical stops the cycle, so no model is trained on it and nothing is to be shown.
Every other one is planted into the sample's windows at the middle strength, a snapshot is built of
them and the recipe's model is trained. Its target metric is measured on the holdout of the sound
log, which is what users would feel, and compared with models of the sound log. What training moves
by its seed alone is told besides: a change within it is no harm that could be shown. A defect that
breaks the contract of the log never reaches a model. `DEFECTS` in the environment names others than
these, critical ones too.
"""

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record import Row, row
from sample import AS_OF, HOME, event_log_uri, make_run, spec_of

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.log_days.trials import NamedTrial, open_window, prepare, try_defects
from pipelines.recipes import completejourney
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from support.worlds import write_events
from training.bundle.score_split import score_split
from training.data.example_rows import load_rows
from training.launch import launcher
from validation.data_gate.planted import DEFECTS, LogRows
from validation.model_gate.ranking_metrics import top_k_hits

SEEDS = (17, 18, 19)
HARM = 0.01
STRENGTH = "middle"


def measure() -> list[Row]:
    """Train on the sound log by several seeds, and on each spoiled one by the first."""
    os.environ["HOMEFEED_EVENT_LOG"] = event_log_uri()
    every = [defect.name for defect in DEFECTS]
    names = os.environ.get("DEFECTS", "").split()
    tried = {
        each.defect: each
        for each in try_defects(Settings(), "completejourney", f"{AS_OF:%Y-%m-%d}", names or every)
        if each.strength == STRENGTH and each.trial.has_effect
    }
    trials = {name: each for name, each in tried.items() if names or not each.trial.is_critical}
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-", dir=HOME / "bench") as folder:
        return [_row(trials, len(tried), *_changes(Path(folder), list(trials)))]


def _changes(folder: Path, names: list[str]) -> tuple[dict[str, float | None], float]:
    """Return what each defect does to the metric, None where the log is refused; and the noise."""
    window = open_window(Settings(), "completejourney", f"{AS_OF:%Y-%m-%d}")
    bench = prepare(window, str(folder))
    sound = _snapshot(folder / "sound", event_log_uri(), SEEDS[0])
    levels = [_level(sound, sound, seed) for seed in SEEDS]
    usual = statistics.mean(levels)
    changes: dict[str, float | None] = {}
    for defect in DEFECTS:
        if defect.name not in names:
            continue
        log = defect.plant(bench.clean, defect.strengths.middle, np.random.default_rng([1, 1]))
        place = folder / defect.name
        write_spoiled(place / "event_log", log)
        try:
            built = _snapshot(place, storage.to_uri(place / "event_log"), SEEDS[0])
            changes[defect.name] = _level(built, sound, SEEDS[0]) / usual - 1
        except DataContractError as error:
            sys.stderr.write(f"  {defect.name}: {error}\n"[:200])
            changes[defect.name] = None
        sys.stderr.write(f"  {defect.name}: {changes[defect.name]}\n")
        shutil.rmtree(place)
    return changes, (max(levels) - min(levels)) / usual


def _config(seed: int) -> RunConfig:
    base = completejourney()
    return base.model_copy(update={"training": base.training.model_copy(update={"seed": seed})})


def _snapshot(folder: Path, log_uri: str, seed: int) -> Snapshot:
    return write_snapshot(make_run(_config(seed), AS_OF, folder / "workspace", log_uri))


def _level(trained_on: Snapshot, sound: Snapshot, seed: int) -> float:
    """Return the repins in the top 3 of the sound holdout's requests, by a model of a snapshot."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
        result = launcher.train(spec_of(trained_on, _config(seed), work_dir))
        folder = storage.local_path(sound.uri)
        scores = score_split(Path(result.bundle_dir), sound, folder, SPLIT_HOLDOUT)
    rows = load_rows(sound, folder, SPLIT_HOLDOUT)
    return float(top_k_hits(rows, scores.ranking_score, rows.labels["repin"]).mean())


def write_spoiled(folder: Path, log: LogRows) -> None:
    """Write a copy of the sample's log in which the days and embeddings are others."""
    shutil.copytree(HOME / "event_log", folder, copy_function=os.link)
    (folder / "event_log.json").unlink()
    for table in ("impressions", "actions"):
        rows = getattr(log, table)
        for day in range(log.first_day - 1, log.end_day):
            shutil.rmtree(folder / table / f"day={np.datetime64(day, 'D')}", ignore_errors=True)
        write_events(folder, table, rows)
    for table, key in (("pins", "pin_id"), ("users", "user_id")):
        path = folder / table / "part-0.parquet"
        rows = pq.read_table(path)
        spoiled = getattr(log, table)
        if table == "users":
            # Rows from after as_of are not in memory, and a defect may have lost some others.
            rows = rows.filter(pa.array(np.isin(_keys(rows), _keys(spoiled))))
        assert rows[key].equals(spoiled[key].cast(rows[key].type))
        place, field = rows.schema.get_field_index("embedding"), rows.schema.field("embedding")
        rows = rows.set_column(place, field, spoiled["embedding"].cast(field.type))
        path.unlink()  # it is the sample's own file, by another name
        pq.write_table(rows, path)


def _keys(users: pa.Table) -> np.ndarray:
    """Return a number for each row that says whose it is and from when."""
    return (np.asarray(users["user_id"]) << 42) + np.asarray(users["as_of"])


def _row(
    trials: dict[str, NamedTrial], num_tried: int, changes: dict[str, float | None], noise: float
) -> Row:
    moved = {name: change for name, change in changes.items() if change is not None}
    harmful = sorted(
        (name for name, change in moved.items() if abs(change) > HARM), key=lambda name: moved[name]
    )
    critical = [name for name in harmful if trials[name].trial.is_critical]
    told = "; ".join(f"{name} {moved[name]:+.1%} {_said(trials[name])}" for name in harmful)
    refused = [name for name, change in changes.items() if change is None]
    mild = len(harmful) - len(critical)
    return row(
        "gate_harmful_not_critical",
        mild,
        "defects",
        ratio=mild / max(1, len(harmful)),
        peer="the defects that move the metric",
        spread=f"one planting and one training each; seeds alone {noise:.1%}",
        rows=len(changes),
        seed=" ".join(map(str, SEEDS)),
        note=f"goal 0; {num_tried - len(trials)} of {num_tried} defects are critical at the middle "
        f"strength and were not trained on; of {len(changes)} others {len(harmful)} move the "
        f"metric by more than {HARM:.0%}: {told or 'none'}. Refused by the contract: "
        f"{', '.join(refused) or 'none'}.",
    )


def _said(trial: NamedTrial) -> str:
    if not trial.trial.is_found:
        return "not found"
    return "critical" if trial.trial.is_critical else "warned"
