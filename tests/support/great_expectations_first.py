"""Imports Great Expectations as the data gate does, for a server that forks processes."""

from validation.data_gate.gx_runner import import_great_expectations

import_great_expectations()
