"""Everything that makes and runs a model. Imports nothing of this project but `pipelines.contracts`."""
