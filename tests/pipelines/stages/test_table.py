"""The table of stages agrees with their functions."""

import inspect
from datetime import datetime

from pipelines.contracts.artifacts import STAGES, RunRequest
from pipelines.contracts.stage_table import TABLE
from pipelines.settings import Settings
from training.fitting.spec import NodeAddress


def test_the_table_says_what_each_function_takes_and_gives() -> None:
    assert tuple(TABLE) == STAGES
    for stage in TABLE.values():
        # The stages' own modules do not import what trains.
        names = {"NodeAddress": NodeAddress}
        signature = inspect.signature(stage.load(), eval_str=True, locals=names)
        takes = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        extras = {name: takes.pop(name) for name in stage.also}
        inputs = [*stage.inputs.values()] or [RunRequest]
        assert [*takes.values()] == inputs
        kinds = {"output_uri": str, "now": datetime, "settings": Settings}
        assert extras.items() <= (kinds | {"node": NodeAddress | None}).items()
        gives = signature.return_annotation  # of a further machine a training gives nothing
        assert gives in ((stage.gives, stage.gives | None) if stage.trains else (stage.gives,))


def test_an_artifact_is_given_by_one_stage() -> None:
    for stage in TABLE.values():
        for upstream, kind in stage.inputs.items():
            assert TABLE[upstream].gives is kind
            assert STAGES.index(upstream) < STAGES.index(stage.name)
