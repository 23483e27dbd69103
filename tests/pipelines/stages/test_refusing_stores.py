"""A store that refuses is named at the start of a run, before anything is done."""

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.preconditions.cycle import look_at
from pipelines.settings import Settings
from pipelines.stages import runner
from support.s3_server import BUCKET, Manner, s3_server, use_s3
from support.stage_acts import request_of


@pytest.mark.parametrize("manner", ["deaf", "without"])
def test_a_store_without_conditional_writes_is_refused_before_anything_is_done(
    manner: Manner, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = f"s3://{BUCKET}/workspace"
    with s3_server(manner) as url:
        use_s3(url, monkeypatch)
        with pytest.raises(ConfigurationError, match="nothing else keeps two runs apart"):
            runner.start_run(request_of("any"), Settings(workspace=workspace))
        [run] = storage.list_names(f"{workspace}/runs")
        assert storage.list_names(f"{workspace}/runs/{run}/resolve_run") == ["failure.json"]


def test_a_bucket_that_is_missing_is_named_and_told_from_an_empty_one(s3_uri: str) -> None:
    with pytest.raises(ConfigurationError, match="nowhere.*: there is no such bucket"):
        runner.start_run(request_of("any"), Settings(workspace="s3://nowhere/workspace"))
    with pytest.raises(ConfigurationError, match="the bucket of s3://nowhere/log"):
        look_at("s3://nowhere/log")
    with pytest.raises(HomefeedError, match="no event log at .*: the folder is missing or empty"):
        look_at(f"{s3_uri}/log")
