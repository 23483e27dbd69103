"""Fixtures of a champion over MLflow's own store that scores a real log."""

from support.desk import desk, empty_store, store_uri
from support.monitored import monitored, monitored_world

__all__ = ["desk", "empty_store", "monitored", "monitored_world", "store_uri"]
