"""The DAG file of the rollback: its form, its one task, what it moves and what it updates."""

import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, ParamValidationError

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import ConfigurationError
from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.registry import history, registry, tracking
from support.registered import NOW, promote_bundle
from support.runs import make_run

ROOT = Path(__file__).parents[2]
FIRST_DAY = datetime(2017, 6, 12, tzinfo=UTC)
SOON = timedelta(seconds=5)


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "dags" / "homefeed_rollback.py"))


@pytest.fixture(scope="module")
def dag(namespace: dict[str, Any]) -> Any:
    return namespace["homefeed_rollback"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("to_version", [None, "3", "12"], ["v3", "0", "3; rm", "", 3]),
        ("from_version", [None, "4"], ["latest"]),
        ("reason", ["hides rose"], ["", "why", None, "x" * 501]),
    ],
)
def test_the_form_takes_what_fits(dag: Any, name: str, good: list, bad: list) -> None:
    for value in good:
        assert dag.params.get_param(name).resolve(value) == value
    for value in bad:
        with pytest.raises(ParamValidationError):
            dag.params.get_param(name).resolve(value)


def test_it_waits_for_nobody_runs_one_at_a_time_and_updates_the_retraining_s_asset(
    dag: Any, namespace: dict[str, Any]
) -> None:
    assert dag.schedule is None and not dag.is_paused_upon_creation
    assert dag.max_active_runs == 1
    [task] = dag.tasks
    assert task.retries == 2 and isinstance(task.retry_policy, StageRetryPolicy)
    assert task.pool == "default_pool"
    assert (task.retries + 1) * task.execution_timeout < dag.dagrun_timeout
    retrain = runpy.run_path(str(ROOT / "dags" / "homefeed_retrain.py"))
    assert namespace["CHAMPION"] == retrain["CHAMPION"]
    assert task.outlets == [namespace["MOVED"]] == [retrain["PROMOTED"]]


class Two:
    """Two cycles, the second of whose models serves, and the DAG's task over them."""

    def __init__(self, folder: Path, tracking_uri: str, namespace: dict[str, Any]) -> None:
        self.client, self.name = tracking.connect(tracking_uri), f"rolled_{folder.name}"
        places = dict.fromkeys(("registered_model", "experiment"), self.name)
        places["tracking_uri"] = tracking_uri
        run = make_run(folder, as_of=FIRST_DAY, **places)
        self.first: ModelRef = promote_bundle(self.client, run, folder)
        later = FIRST_DAY + timedelta(days=14)
        self.run: ResolvedRun = make_run(folder, as_of=later, champion=self.first, **places)
        self.second = promote_bundle(self.client, self.run, folder, NOW + timedelta(days=14))
        self.namespace, self.events = namespace, list[dict[str, str]]()

    def roll_back(self, begun: datetime, **values: str | None) -> str:
        """Run the task of a run that began then, on a form with such values."""
        form = {"to_version": None, "from_version": None, "reason": "hides rose", **values}
        [task], champion = self.namespace["homefeed_rollback"].tasks, self.namespace["CHAMPION"]

        def add(asset: Any, extra: dict[str, str]) -> None:
            assert asset == champion
            self.events.append(extra)

        events = {self.namespace["MOVED"]: SimpleNamespace(add=add)}
        return str(
            task.python_callable(
                form, SimpleNamespace(start_date=begun, triggering_user_name="anna"), events
            )
        )


@pytest.fixture
def two(
    tmp_path: Path,
    tracking_uri: str,
    namespace: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Two:
    made = Two(tmp_path, tracking_uri, namespace)
    monkeypatch.setenv("HOMEFEED_WORKSPACE", made.run.workspace_uri)
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", made.name)
    return made


@pytest.mark.services
def test_it_moves_once_a_retry_tells_the_asset_again_and_the_same_form_is_skipped(
    two: Two,
) -> None:
    with pytest.raises(ConfigurationError, match="is the champion already"):
        two.roll_back(datetime.now(UTC), to_version=two.second.version)
    assert two.events == []
    begun = datetime.now(UTC) + SOON  # Airflow's clock is ahead of this worker's.
    said = two.roll_back(begun)
    assert said == f"{two.first.label} serves, in place of {two.second.label}"
    assert registry.read_champion(two.client, two.name) == two.first
    index = storage.read_bytes(f"{two.run.workspace_uri}/cycles.html").decode()
    assert f">{two.first.label}</p>" in index, "the index of all cycles says who serves"
    two.roll_back(begun)  # as after a kill between the move and the end of the task
    assert two.events == [{"version": two.first.version, "reason": "hides rose"}] * 2
    with pytest.raises(AirflowSkipException, match=r"nothing was moved: .*hides rose"):
        two.roll_back(begun + SOON)
    assert len(two.events) == 2
    assert len(history.load(two.run.workspace_uri, two.name).moves) == 3
