"""`homefeed log import` of 10 M rows of CSV by a mapping: seconds, beside DuckDB's plain copy.

8 M impressions and 2 M actions with times as texts, 200,000 pins with embeddings in Parquet. The
peer reads the same files with as many threads and writes Parquet files by day, unchecked, unsorted.
"""

import shutil
import sys
from pathlib import Path

import duckdb
import yaml
from record import Row, row
from sample import HOME
from synthetic import SEED, LogShape, write_log
from timed import run_process

FOLDER = HOME / "bench" / "import"
SHAPE = LogShape(8_000_000, 0.25, num_users=200_000, num_pins=200_000, num_days=14, candidates=20)
TIMES = {"impressions": "impressed_at", "actions": "acted_at"}
_TO_CSV = """COPY (SELECT * EXCLUDE (day) REPLACE (
    strftime(make_timestamp({time} * 1000), '%Y-%m-%dT%H:%M:%S.%gZ') AS {time},
    strftime(make_timestamp(known_at * 1000), '%Y-%m-%dT%H:%M:%S.%gZ') AS known_at)
  FROM read_parquet('{folder}/log/{table}/*/*.parquet')) TO '{folder}/{table}.csv'"""
_PEER = """import duckdb
for table, time in {times}.items():
    duckdb.sql(f"COPY (SELECT *, strftime({{time}}, '%Y-%m-%d') AS day FROM read_csv("
               f"'{folder}/{{table}}.csv')) TO '{folder}/peer/{{table}}' "
               f"(FORMAT parquet, PARTITION_BY day)")
duckdb.sql("COPY (FROM '{folder}/pins.parquet') TO '{folder}/peer/pins.parquet'")
"""


def measure() -> list[Row]:
    """Return the time of an import, with the peak of its memory."""
    num_rows = write_log(FOLDER / "log", SHAPE)
    try:
        mapping = _write_files()
        words = ["log", "import", "--mapping", str(mapping), "--to", str(FOLDER / "mine")]
        ran = run_process([sys.executable, "-m", "pipelines.cli", *words])
        (FOLDER / "peer").mkdir()
        peer = run_process([sys.executable, "-c", _PEER.format(folder=FOLDER, times=TIMES)])
    finally:
        shutil.rmtree(FOLDER)
    return [
        row(
            "import_10m_s",
            ran.seconds,
            "s",
            ratio=ran.seconds / peer.seconds,
            peer=f"DuckDB's copy into Parquet by day, {peer.seconds:.0f} s",
            rows=num_rows,
            seed=str(SEED),
            note=f"at most {ran.peak_mib:,.0f} MiB (the peer {peer.peak_mib:,.0f}), "
            f"{ran.cpu_s:.0f} s of the cores (the peer {peer.cpu_s:.0f})",
        )
    ]


def _write_files() -> Path:
    with duckdb.connect() as database:
        for table, time in TIMES.items():
            database.execute(_TO_CSV.format(folder=FOLDER, table=table, time=time))
        pins = f"FROM read_parquet('{FOLDER}/log/pins/*.parquet')"
        database.execute(f"COPY ({pins}) TO '{FOLDER}/pins.parquet'")
    shutil.rmtree(FOLDER / "log")
    tables = {
        "impressions": ["request_id", "user_id", "pin_id", "impressed_at", "known_at", "position"],
        "actions": ["user_id", "pin_id", "action_type", "acted_at", "known_at", "request_id"],
        "pins": ["pin_id", "embedding"],
    }
    files = {"impressions": "impressions.csv", "actions": "actions.csv", "pins": "pins.parquet"}
    parts = {
        name: {"files": files[name], "columns": {each: each for each in columns}}
        for name, columns in tables.items()
    }
    (path := FOLDER / "mapping.yaml").write_text(
        yaml.safe_dump({"embedding_version": "v1", "tables": parts})
    )
    return path
