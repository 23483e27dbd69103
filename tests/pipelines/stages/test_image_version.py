"""An image of other code than the DAG's is refused by name; what is not known is no difference."""

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import StageFailure
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import failure_uri, manifest_uri
from pipelines.stages.image_version import require_same_version
from pipelines.stages.runner import run_stage
from support.runs import make_run, save_run

OLD, NEW = "1ea249806b6e", "6736cd9a0b1c"


@pytest.mark.parametrize(
    ("image", "dag", "is_refused"),
    [
        (OLD, OLD, False),
        (OLD, NEW, True),
        (OLD, f"{OLD}-dirty", True),
        ("", NEW, False),
        (OLD, "", False),
        ("unknown", NEW, False),
        (OLD, "unknown", False),
        (OLD, "0.1.0+code.1a2b3c4d5e6f", False),
    ],
)
def test_only_two_known_versions_are_compared(image: str, dag: str, is_refused: bool) -> None:
    environment = {"HOMEFEED_IMAGE_VERSION": image, "HOMEFEED_DAG_VERSION": dag}
    if not is_refused:
        require_same_version(environment)
        return
    with pytest.raises(ConfigurationError, match=f"'{image}'.*'{dag}'.*trainer image of .* {dag}"):
        require_same_version(environment)


def test_where_either_variable_is_missing_nothing_is_compared() -> None:
    both = {"HOMEFEED_IMAGE_VERSION": OLD, "HOMEFEED_DAG_VERSION": NEW}
    with pytest.raises(ConfigurationError):
        require_same_version(both)
    for missing in both:
        require_same_version({name: both[name] for name in both if name != missing})
    require_same_version({})


def test_a_stage_of_another_image_does_nothing_and_leaves_why(tmp_path, monkeypatch) -> None:
    run = save_run(make_run(tmp_path))
    monkeypatch.setenv("HOMEFEED_IMAGE_VERSION", OLD)
    monkeypatch.setenv("HOMEFEED_DAG_VERSION", NEW)
    with pytest.raises(ConfigurationError, match=OLD):
        run_stage("build_snapshot", run.run_uri)
    assert not storage.exists(manifest_uri(run.run_uri, "build_snapshot"))
    left = storage.read_model(failure_uri(run.run_uri, "build_snapshot"), StageFailure)
    assert (left.exit_code, left.is_retryable) == (78, False)
    assert OLD in left.message and NEW in left.message
