"""What a person should run next: right for each end of a cycle, and understood by `homefeed`."""

import subprocess
from collections import Counter
from datetime import UTC, datetime

import pytest

from pipelines import storage
from pipelines.alerts.commands import Command, cycle_command, new_cycle_command, runnable
from pipelines.alerts.compose import Ended, after_failure, after_lost_start, after_unresolved
from pipelines.alerts.incidents import alert_on_failure
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts import snapshot_files
from pipelines.contracts.alert import AlertReceipt, NextStep
from pipelines.contracts.artifacts import STAGES, ResolvedRun, RunRequest, Snapshot
from pipelines.contracts.errors import SnapshotDamagedError
from pipelines.contracts.judgement import Decision, Judgement
from pipelines.contracts.run_layout import StageFailure, manifest_uri
from pipelines.plain_text import one_line
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, run_stage
from support import commands
from support.commands import EXECUTABLE, parse
from support.damage import flip_a_byte
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run
from support.worlds import write_planted_world


def parsed(step: NextStep) -> list[tuple[str, dict]]:
    return [((c := parse(command)).info_name, c.params) for _, command in step.commands]


def step_after(decision: Decision, run: ResolvedRun) -> NextStep:
    return outcome_of(run, make_judgement(decision), None, Settings()).next_step


@pytest.mark.parametrize("may_promote", [True, False])
def test_after_a_rejection_the_same_day_is_asked_again_in_another_cycle(tmp_path, may_promote):
    odd = {"champion": CHAMPION, "num_devices": 4, "accelerator": "gpu", "trigger": "it's a key"}
    run = make_run(tmp_path, may_promote=may_promote, **odd)
    step = step_after(Decision.REJECT, run)

    assert "test_ranker v3 (as_of 2017-02-16) stays champion" in step.sentence
    assert parsed(step) == [
        ("serving", {"at": "", "as_json": False}),
        (
            "retrain",
            {
                "as_of": "2017-03-02",
                "recipe": "smoke",
                "promote": may_promote,
                "devices": 4,
                "nodes": 1,
                "accelerator": "gpu",
                "key": f"again-{run.run_id}",
                "as_json": False,
            },
        ),
    ]


def test_a_cycle_of_several_machines_is_begun_with_them_or_run_whole_on_one(tmp_path):
    run = make_run(tmp_path, num_devices=4, num_nodes=2)
    request = run.to_request()
    begun = parse(cycle_command(request, run, "resolve")).params
    whole = parse(cycle_command(request, run)).params
    assert (begun["devices"], begun["nodes"]) == (4, 2)
    assert (whole["devices"], whole["nodes"]) == (8, 1)  # so many processes train the same


def test_an_inconclusive_verdict_asks_the_first_fresh_holdout(tmp_path):
    step = step_after(Decision.INCONCLUSIVE, make_run(tmp_path, champion=CHAMPION))
    _, (name, params) = parsed(step)
    assert (name, params["as_of"]) == ("retrain", "2017-03-09")  # a holdout is seven days long
    assert step.commands[-1][0].startswith("Once the event log holds every day before 2017-03-09")


def test_a_promotion_can_be_taken_back_to_the_version_that_served(tmp_path):
    step = step_after(Decision.PROMOTE, make_run(tmp_path, champion=CHAMPION))
    assert "makes test_ranker v4 the champion" in step.sentence
    assert parsed(step)[1][0] == "rollback"
    assert parsed(step)[1][1]["to_version"] == "3"


def test_the_first_champion_has_nothing_to_go_back_to(tmp_path):
    step = step_after(Decision.PROMOTE, make_run(tmp_path, champion=None))
    assert [name for name, _ in parsed(step)] == ["serving"]


def test_a_run_that_may_not_promote_is_offered_one_that_may(tmp_path):
    run = make_run(tmp_path, champion=CHAMPION, may_promote=False)
    step = step_after(Decision.PROMOTE, run)
    assert "v3 (as_of 2017-02-16) stays champion" in step.sentence
    name, params = parsed(step)[1]
    assert (name, params["promote"], params["as_of"]) == ("retrain", True, "2017-03-02")
    assert params["key"] != run.trigger


def test_a_backfill_older_than_the_champion_is_offered_no_promotion(tmp_path):
    newer = CHAMPION.model_copy(update={"as_of": datetime(2017, 3, 2, tzinfo=UTC)})
    run = make_run(tmp_path, champion=CHAMPION, later_champion=newer, may_promote=False)
    step = step_after(Decision.PROMOTE, run)
    assert [name for name, _ in parsed(step)] == ["serving"]
    assert "no run as of 2017-03-02 could" in step.sentence


@pytest.mark.parametrize("decision", Decision)
def test_nobody_is_asked_who_serves_where_nothing_can(tmp_path, decision):
    run = make_run(tmp_path, champion=None, may_promote=False)
    assert "serving" not in {name for name, _ in parsed(step_after(decision, run))}


def test_a_cycle_that_was_not_resolved_is_begun_under_the_name_that_airflow_gave_it():
    request = RunRequest(
        as_of=datetime(2026, 1, 5, tzinfo=UTC),
        now=datetime(2026, 1, 6, tzinfo=UTC),
        recipe="smoke",
        num_devices=2,
        accelerator="cpu",
        may_promote=True,
        trigger="manual__2026-01-05T06:00:00+00:00",
    )
    step = after_unresolved(request, Settings())
    (name, params), (_, without) = parsed(step)
    assert (name, params["key"]) == ("resolve", "manual__2026-01-05T06:00:00+00:00")
    assert params["promote"] and without == params | {"promote": False}
    # The commands repeat what was asked for, which helps nobody who has mistyped it.
    assert "If the day or the recipe was not meant, trigger another run" in step.sentence


def test_a_start_that_was_lost_leaves_a_question():
    assert [name for name, _ in parsed(after_lost_start(Settings()))] == ["serving"]


def refused_in(stage: str, *acceptable: str) -> StageFailure:
    return StageFailure(
        stage=stage,
        error_class="DataGateFailedError",
        message="the data gate refused it",
        exit_code=65,
        is_retryable=False,
        occurred_at=datetime(2026, 1, 5, tzinfo=UTC),
        acceptable=acceptable,
    )


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("build_snapshot", ["accept", "accept", "stage", "retrain"]),
        ("check_snapshot", ["retrain", "accept", "accept", "stage", "retrain"]),
    ],
)
def test_a_refusal_that_may_be_accepted_says_how_with_commands(tmp_path, stage, expected):
    run = make_run(tmp_path)
    step = after_failure(run, stage, refused_in(stage, "first_share", "second_share"))
    assert [name for name, _ in parsed(step)] == expected
    accepted = [p for name, p in parsed(step) if name == "accept"]
    assert [each["expectation"] for each in accepted] == ["first_share", "second_share"]
    assert {each["run"] for each in accepted} == {run.run_uri}
    assert "if the data are right, accept them" in step.sentence
    never = after_failure(run, stage, refused_in(stage))
    assert "accept" not in [name for name, _ in parsed(never)]


def test_a_model_whose_files_are_gone_can_get_them_back_within_the_run(tmp_path):
    run, stage = make_run(tmp_path), "compare_with_champion"
    gone = refused_in(stage).model_copy(update={"about": ("bundle missing",)})
    step = after_failure(run, stage, gone)
    assert step.sentence.startswith("Put the files back, then run the failed stage again.")
    assert [name for name, _ in parsed(step)] == ["stage", "retrain", "retrain"]
    keys = [params["key"] for name, params in parsed(step) if name == "retrain"]
    assert keys == [run.trigger, f"again-{run.run_id}"]


@pytest.fixture
def cycle(tmp_path, tracking_uri, monkeypatch) -> ResolvedRun:
    """A resolved cycle on a planted world; the environment does not know where it runs."""
    write_planted_world(tmp_path / "event_log")
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", f"r_{tmp_path.name}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    commands.run("homefeed resolve --as-of 2017-03-02 --recipe smoke --no-promote --key 'a cycle'")
    for name in ("HOME", "TRACKING_URI", "REGISTERED_MODEL"):
        monkeypatch.delenv(f"HOMEFEED_{name}")
    runs_uri = storage.to_uri(tmp_path / "workspace" / "runs")
    [name] = storage.list_names(runs_uri)
    return read_artifact(storage.join(runs_uri, name), "resolve_run", ResolvedRun)


def stages_done(run_uri: str) -> list[str]:
    return [stage for stage in STAGES if storage.exists(manifest_uri(run_uri, stage))]


@pytest.mark.services
@pytest.mark.slow
def test_what_is_told_after_damage_and_after_a_rejection_works(cycle: ResolvedRun) -> None:
    for stage in ("build_snapshot", "check_snapshot"):
        run_stage(stage, cycle.run_uri)
    snapshot = read_artifact(cycle.run_uri, "build_snapshot", Snapshot)
    flip_a_byte(storage.local_path(snapshot.uri) / "pins.arrow")
    repeated = new_cycle_command(cycle).replace(f"again-{cycle.run_id}", "'a cycle'")
    with pytest.raises(SnapshotDamagedError, match=r"pins\.arrow was altered"):
        commands.run(repeated)
    assert stages_done(cycle.run_uri) == list(STAGES[:3])

    alert = alert_on_failure(cycle.run_uri, Settings(), Ended("train_challenger")).alert
    for _, command in alert.next_step.commands:
        commands.run(command)
    assert stages_done(cycle.run_uri) == list(STAGES)

    step = step_after(Decision.REJECT, cycle)
    commands.run(step.commands[-1][1])
    runs_uri = storage.join(cycle.workspace_uri, "runs")
    [other] = [name for name in storage.list_names(runs_uri) if name != cycle.run_id]
    again = read_artifact(storage.join(runs_uri, other), "resolve_run", ResolvedRun)
    assert stages_done(again.run_uri) == list(STAGES)
    assert (again.as_of, again.may_promote) == (cycle.as_of, cycle.may_promote)
    page = read_artifact(again.run_uri, "compare_with_champion", Judgement).report_uri
    told = read_artifact(again.run_uri, "alert", AlertReceipt).alert.next_step
    assert all(line in storage.read_bytes(page).decode() for _, line in told.commands)


@pytest.mark.services
@pytest.mark.slow
def test_each_stage_verifies_the_snapshot_once(cycle: ResolvedRun, monkeypatch) -> None:
    run_stage("build_snapshot", cycle.run_uri)
    snapshot = read_artifact(cycle.run_uri, "build_snapshot", Snapshot)
    folder = storage.local_path(snapshot.uri)
    genuine, counts = snapshot_files.sha256_of, Counter()
    monkeypatch.setattr(
        snapshot_files, "sha256_of", lambda path: counts.update([path]) or genuine(path)
    )
    for stage in ("check_snapshot", "train_challenger", "compare_with_champion"):
        run_stage(stage, cycle.run_uri)
        assert counts == dict.fromkeys((folder / file.path for file in snapshot.files), 1), stage
        counts.clear()
        if stage == "train_challenger":
            run_stage("train_anchor", cycle.run_uri)  # nothing to do: no recipe is accepted yet
            assert not counts


@pytest.mark.parametrize(
    "key", ["it's a key", "two\nlines", "\x1b[2J\u202e", "größe \\x41", "a\tb'"]
)
def test_a_command_shows_what_is_in_it_and_means_the_same_in_a_shell(tmp_path, key):
    run = make_run(tmp_path, champion=CHAMPION, trigger=key)
    command = cycle_command(run.to_request(), run)
    assert one_line(command) == command
    asked = f"homefeed() {{ printf '%s' \"${{@: -1}}\"; }}\n{command}"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, check=True)
    assert done.stdout.decode() == key


@pytest.mark.parametrize("folder", ["a folder", "plain"])
def test_what_is_to_be_run_next_works_as_pasted_from_any_folder(tmp_path, folder):
    """By a real shell, with nothing of ours on its PATH and no settings of ours."""
    workspace = tmp_path / folder
    workspace.mkdir()
    run = make_run(workspace, tracking_uri="http://127.0.0.1:9", champion=CHAMPION)
    step = step_after(Decision.REJECT, run)
    command = dict(step.commands)["Which model serves now?"]
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    # It got as far as to look for the workspace that the command names.
    assert done.returncode == 78, done.stderr
    assert run.workspace_uri in done.stderr and "not found" not in done.stderr


def test_only_the_name_of_the_command_gets_its_path(monkeypatch):
    odd = Command("serving", "HOMEFEED_WORKSPACE='/srv/our homefeed data' ")
    assert runnable(odd) == odd.replace(" homefeed serving", f" {EXECUTABLE} serving")
    # A stage's container is gone when somebody reads what it has composed.
    monkeypatch.setenv("HOMEFEED_DAG_VERSION", "1a2b3c4")
    assert runnable(odd) == odd
