"""The lab's registry is MLflow's store in this process."""

from support.desk import empty_store, store_uri

__all__ = ["empty_store", "store_uri"]
