"""The gate's test of itself, on each cycle's own rows; others come in by `run.run_self_test`."""
