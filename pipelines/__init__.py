"""The pipeline: contracts, storage, sources, snapshot, registry, alerts, command line."""
