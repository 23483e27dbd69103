"""What logged exploration says of a ranking that was never shown; others come in by `estimate`."""
