"""Tests of the registry use MLflow's store in this process, where they need no server."""

from support.desk import desk, store_uri

__all__ = ["desk", "store_uri"]
