"""An image of other code than the DAG's is refused by name, however its version is called."""

import pytest

from pipelines import storage
from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import StageFailure, failure_uri, manifest_uri
from pipelines.stages.image_version import require_same_version
from pipelines.stages.runner import run_stage
from support.runs import make_run, save_run

OLD, NEW = "1ea249806b6e", "6736cd9a0b1c"
OTHER_CODE = "0" * 64


def told(image: str, dag: str, code: str) -> dict[str, str]:
    return {
        "HOMEFEED_IMAGE_VERSION": image,
        "HOMEFEED_DAG_VERSION": dag,
        "HOMEFEED_DAG_CODE": code,
    }


@pytest.mark.parametrize(
    ("image", "dag"),
    [(OLD, NEW), (OLD, OLD), (f"{OLD}-dirty", f"{OLD}-dirty"), ("unknown", NEW), ("", "unknown")],
)
def test_other_code_is_refused_by_the_names_of_both(image: str, dag: str) -> None:
    expected = f"version '{image or 'unknown'}'.*version '{dag}'.*digest 000000000000.*{dag}, or"
    with pytest.raises(ConfigurationError, match=expected) as caught:
        require_same_version(told(image, dag, OTHER_CODE))
    assert project_digest()[:12] in str(caught.value)


def test_the_same_code_is_the_same_and_where_no_dag_started_the_stage_nothing_is_compared() -> None:
    require_same_version(told(OLD, NEW, project_digest()))
    with pytest.raises(ConfigurationError):
        require_same_version({"HOMEFEED_DAG_CODE": OTHER_CODE})
    require_same_version({"HOMEFEED_IMAGE_VERSION": OLD})
    require_same_version({})


def test_a_stage_of_another_image_does_nothing_and_leaves_why(tmp_path, monkeypatch) -> None:
    run = save_run(make_run(tmp_path))
    for name, value in told(OLD, NEW, OTHER_CODE).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=OLD):
        run_stage("build_snapshot", run.run_uri)
    assert not storage.exists(manifest_uri(run.run_uri, "build_snapshot"))
    left = storage.read_model(failure_uri(run.run_uri, "build_snapshot"), StageFailure)
    assert (left.exit_code, left.is_retryable) == (78, False)
    assert OLD in left.message and NEW in left.message
