"""What MLflow's pages show of a cycle beyond its runs' tags; nothing is decided or moved here."""
