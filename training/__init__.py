"""Everything that makes and runs a model. Imports nothing of ours but `pipelines.contracts`."""
