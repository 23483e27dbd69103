"""Pipeline of homefeed_retrain: contracts, storage, sources, snapshot, registry, alerts, command line."""
