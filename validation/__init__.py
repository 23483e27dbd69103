"""Everything that judges: the data gate before training, the model gate before promotion."""
