"""A whole cycle is rebuilt: killed in the middle, without the original registry, and to its end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.errors import (
    DataContractError,
    TrackingEntryMissingError,
    TrackingUnavailableError,
)
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.registry import moves, registry, tracking
from pipelines.registry.evidence import FoundChange
from pipelines.registry.history import recipe_of
from pipelines.reproduction.comparing import REBUILT as STAGES
from pipelines.reproduction.rebuild import fetch_champion, moved, own_registry
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, run_stage, start_run
from support import commands
from support.bundles import write_small_bundle
from support.evidence import publish_evidence
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.judgements import CHAMPION
from support.otlp import http_receiver
from support.registered import register_bundle
from support.runs import PLANTED_AS_OF, make_run, save_run
from support.untouched import look_of, look_of_registry
from support.worlds import PLANTED_VERSION, write_planted_world
from training.bundle import mlflow_model

NAME = "reproduced"


class Past(NamedTuple):
    home: Path
    run: ResolvedRun
    line: FaultyProxy  # between the record's registry and whoever rebuilds
    folder: Path  # where it is rebuilt

    @property
    def command(self) -> str:
        return f"homefeed reproduce {self.run.run_uri} --into {self.folder}"


def serve_a_first_model(home: Path, tracking_uri: str) -> None:
    """Have the gate accept a snapshot, and an untrained model serve, as if a cycle had done it."""
    places = {"tracking_uri": tracking_uri, "registered_model": NAME, "experiment": NAME}
    run = save_run(make_run(home, as_of=PLANTED_AS_OF - timedelta(days=14), **places))
    for name in STAGES[:2]:
        run_stage(name, run.run_uri)
    bundle = write_small_bundle(home / "first", 5, EMBEDDING_DIM, PLANTED_VERSION)
    client, now = tracking.connect(tracking_uri), datetime.now(UTC)
    model = register_bundle(client, run, home, bundle, is_logged=True)
    moves.force(client, run, model, now, "the first one")
    moves.accept_recipe((run.workspace_uri, NAME), recipe_of(run), now, "agreed on")
    # A cycle since then found this of the same recipe against the same champion.
    changes = (FoundChange(pair="theta", metric="repin_volume_at_3", segment="all", value=0.2),)
    of = {"as_of": run.as_of, "judged_at": datetime.now(UTC), "changes": changes}
    publish_evidence(run, champion_bundle=model.bundle_digest, **of)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Iterator[Past]:
    """A cycle that was judged against a champion, with evidence of an earlier one."""
    home = tmp_path_factory.mktemp("past")
    folder = tmp_path_factory.mktemp("rebuilt") / "here"
    write_planted_world(home / "event_log")
    with faulty_proxy(tracking_uri) as line:
        serve_a_first_model(home, line.url)
        settings = Settings(
            home=str(home), tracking_uri=line.url, registered_model=NAME, experiment=NAME
        )
        request = RunRequest(
            recipe="smoke",
            as_of=PLANTED_AS_OF,
            now=datetime(2026, 1, 1, tzinfo=UTC),
            may_promote=True,
            num_devices=1,
            trigger="reproduced",
        )
        run = start_run(request, settings)
        for name in STAGES:
            run_stage(name, run.run_uri)
        yield Past(home, run, line, folder)


@pytest.mark.services
@pytest.mark.slow
def test_a_cycle_is_rebuilt_after_a_kill_and_an_outage_and_its_original_stays_as_it_was(
    past: Past, tracking_uri: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.connect(tracking_uri)
    looks = look_of(past.home), look_of_registry(client, NAME)
    said = killed_in_the_training(past)
    assert "build_snapshot: done in" in said and "train_challenger: done" not in said

    past.line.spoil_every(1, "request lost")  # Only the comparison needs the original registry.
    with pytest.raises(TrackingUnavailableError, match="does not answer"):
        commands.run(past.command)
    past.line.mend()
    said = capsys.readouterr().out
    assert states_of(said) == {
        **dict.fromkeys(STAGES[:-1], {"equal"}),
        "compare_with_champion": {"not rebuilt"},
    }
    assert "compare_with_champion: not rebuilt, TrackingUnavailableError" in said

    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        commands.run(past.command)
    assert receiver.requests == [], "an old cycle is no news of what serves"
    said = capsys.readouterr().out
    assert states_of(said) == dict.fromkeys(STAGES, {"equal"})
    for what in ("snapshot", "challenger: weights", "comparison", "operating curve"):
        assert f"  {what} " in said
    assert "not as it was when the cycle ran: nothing" in said
    assert (look_of(past.home), look_of_registry(client, NAME)) == looks

    rebuilt_uri = storage.to_uri(past.folder / "workspace" / "runs" / past.run.run_id)
    then = read_artifact(past.run.run_uri, "compare_with_champion", Judgement)
    now = read_artifact(rebuilt_uri, "compare_with_champion", Judgement)
    assert now.comparison.baseline_kind is BaselineKind.CHAMPION
    assert now.comparison.metrics == then.comparison.metrics
    assert then.comparison.target is not None and past.run.last_accepted_snapshot_uri is not None
    pooled = then.comparison.find_pooled(then.comparison.target_metric)
    assert pooled is not None and pooled.num_cycles == 2
    assert now.verdict.decision is then.verdict.decision and now.report_uri != then.report_uri
    assert sorted(path.name for path in Path(past.folder).iterdir() if path.name[0] != ".") == [
        *("champion", "registry", "reproduction.lock", "workspace")
    ]

    assert past.run.champion is not None
    client.delete_registered_model_alias(NAME, "champion")
    client.delete_model_version(NAME, past.run.champion.version)
    shutil.rmtree(past.folder / "champion")  # as if it were deleted before it was fetched
    with pytest.raises(TrackingEntryMissingError, match=f"{NAME} has no version '1'") as caught:
        commands.run(past.command)
    assert caught.value.exit_code == 77
    said = states_of(capsys.readouterr().out)
    assert (said["train_challenger"], said["compare_with_champion"]) == ({"equal"}, {"not rebuilt"})


def killed_in_the_training(past: Past) -> str:
    """Rebuild in a process that is killed while it trains, and return what it said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *commands.split(past.command)[1]],
        env={**os.environ, "HOMEFEED_HOME": str(past.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    begun = "workspace/runs/*/train_challenger/training/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not list(past.folder.glob(begun)):
        assert time.monotonic() < deadline and process.poll() is None, "no training began"
        time.sleep(0.01)
    process.kill()
    return process.communicate()[0]


def states_of(said: str) -> dict[str, set[str]]:
    """Return the states of each stage's lines."""
    found: dict[str, set[str]] = {}
    for line in said.splitlines():
        for state in ("equal", "differs", "not rebuilt", "not on record"):
            if line.startswith(f"{state}  "):
                found.setdefault(line.removeprefix(state).split()[0], set()).add(state)
    return found


@pytest.fixture
def own(tmp_path: Path) -> ResolvedRun:
    """A run of several machines that is rebuilt in a folder, by as many processes of this one."""
    folder = tmp_path / "rebuilt"
    folder.mkdir()
    run = make_run(tmp_path, champion=CHAMPION, num_devices=2, num_nodes=3, work_folder="/work")
    found = moved(run, folder, "")[0]
    assert (found.num_devices, found.num_nodes, found.work_folder) == (6, 1, "")
    assert found.run_uri.startswith(f"file://{tmp_path}/rebuilt/")
    return found


def test_a_registry_whose_maker_was_killed_is_made_whole(own: ResolvedRun, tmp_path: Path) -> None:
    folder = tmp_path / "rebuilt"
    child = os.fork()
    if child == 0:
        try:
            registry.ensure_registered_model = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            with own_registry(folder, own):
                pass
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert (folder / "registry" / tracking.OWN_REGISTRY).exists()
    with own_registry(folder, own) as client:
        experiment = client.get_experiment_by_name(own.experiment)
        assert experiment.artifact_location == (folder / "registry" / "artifacts").as_uri()
        [champion] = client.search_model_versions(f"name = '{CHAMPION.name}'")
        assert str(champion.version) == own.champion.version == "1"
        assert champion.tags["bundle_digest"] == CHAMPION.bundle_digest


@pytest.mark.parametrize("is_there", [True, False], ids=["altered", "gone"])
def test_of_a_spoiled_champion_nobody_is_told_to_move_what_serves(
    own: ResolvedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    def download(source: str, folder: Path, tracking_uri: str) -> None:
        if is_there:
            (folder / "bundle.json").write_text("altered")

    client = SimpleNamespace(
        tracking_uri="http://original", get_model_version_download_uri=lambda *_: "file:///there"
    )
    monkeypatch.setattr(tracking, "connect", lambda uri: client)
    monkeypatch.setattr(registry, "read_version", lambda *_: CHAMPION)
    monkeypatch.setattr(mlflow_model, "fetch", download)
    with pytest.raises(DataContractError, match="give --until train_anchor") as caught:
        fetch_champion(own, tmp_path / "rebuilt")
    assert "rollback" not in str(caught.value)
