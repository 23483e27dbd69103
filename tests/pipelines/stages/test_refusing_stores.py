"""A store that refuses is named at the start of a run, or in the midst of a stage, by its class."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.contracts.run_layout import failure_uri, manifest_uri
from pipelines.preconditions.cycle import look_at
from pipelines.settings import Settings
from pipelines.stages import runner
from support.faulty_proxy import error_xml, faulty_proxy
from support.runs import make_run, save_run
from support.s3_server import BUCKET, Manner, s3_server, use_s3
from support.stage_acts import request_of
from support.stage_bodies import Number

NAME = "build_snapshot"


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


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("ExpiredToken", 400, TransientStorageError), ("AccessDenied", 403, ConfigurationError)],
)
def test_a_store_that_begins_to_refuse_in_a_stage_ends_it_and_leaves_nothing_published(
    code: str,
    status: int,
    kind: type[HomefeedError],
    s3_url: str,
    s3_uri: str,
    tmp_path: Path,
    set_body: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where credentials run out midway; when there are new ones, the stage is run again."""
    run_uri = save_run(make_run(tmp_path, workspace_uri=s3_uri)).run_uri
    with faulty_proxy(s3_url) as proxy:
        proxy.answers[code] = (status, error_xml(code))
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        def body(output_uri: str) -> Number:
            file_uri = storage.join(output_uri, "file")
            storage.write_bytes(file_uri, b"x")
            if is_refusing:
                proxy.choose = lambda *_: code
            return Number(value=1, file_uri=file_uri)

        set_body(NAME, body)
        is_refusing = True
        with pytest.raises(kind) as caught:
            runner.run_stage(NAME, run_uri)
        proxy.mend()
        assert caught.value.is_retryable == (code == "ExpiredToken")
        assert not storage.exists(manifest_uri(run_uri, NAME))
        is_refusing = False
        runner.run_stage(NAME, run_uri)
        assert storage.find_missing(runner.read_artifact(run_uri, NAME, Number).places()) == []
        assert not storage.exists(failure_uri(run_uri, NAME))
