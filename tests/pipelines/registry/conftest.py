"""Tests of the registry use MLflow's store in this process, where they need no server."""

from support.desk import desk, empty_store, promoted, store_uri, two

__all__ = ["desk", "empty_store", "promoted", "store_uri", "two"]
