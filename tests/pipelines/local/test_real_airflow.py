"""The DAG in a real scheduler: `homefeed local retrain` runs two cycles and sums up."""

import json
import time

import pytest

from pipelines.contracts.artifacts import STAGES
from support.cycles import judgement_of, promotion_of
from support.lab import FIRST_DAY, SECOND_DAY, homefeed_local, ports_in

pytestmark = pytest.mark.services

RUN_IDS = (f"retrain__smoke__{FIRST_DAY}", f"retrain__smoke__{SECOND_DAY}")


def test_retrain_runs_two_cycles_and_sums_up(retrained):
    assert retrained.returncode == 0, retrained.output
    for run_id in RUN_IDS:
        assert judgement_of(retrained.home, run_id).report_uri in retrained.output
        assert judgement_of(retrained.home, run_id).verdict.reasons[0] in retrained.output
    assert promotion_of(retrained.home, RUN_IDS[0]).is_promoted
    first, second = (judgement_of(retrained.home, run_id).comparison for run_id in RUN_IDS)
    assert first.baseline_model is None
    assert second.baseline_model == first.challenger_model
    assert "http://127.0.0.1:" in retrained.output and "make ui" in retrained.output


def test_nothing_is_left_running_afterwards(retrained):
    assert retrained.left_running == ()
    assert len(ports_in(retrained.output)) == 2
    assert retrained.ports_in_use == (), "a server outlived its mark"


def test_retraining_again_is_quick_and_harmless(retrained):
    before = sorted(str(p) for p in (retrained.home / "workspace").rglob("*"))
    started = time.monotonic()
    done = homefeed_local(
        *("retrain", "--home", str(retrained.home), "--recipe", "smoke"),
        *("--as-of", FIRST_DAY, "--as-of", SECOND_DAY),
        event_log=retrained.event_log,
    )
    assert done.returncode == 0
    assert "nothing to run" in done.stdout
    assert judgement_of(retrained.home, RUN_IDS[1]).report_uri in done.stdout
    assert time.monotonic() - started < 15
    assert sorted(str(p) for p in (retrained.home / "workspace").rglob("*")) == before


def test_a_second_copy_says_that_one_is_running(lab):
    done = homefeed_local("ui", "--home", str(lab.home.path))
    assert done.returncode == 75
    assert "already running" in done.stderr
    lab.services.require_alive()


def test_the_asset_is_updated_by_promotions_only(lab, retrained):
    promotions = [promotion_of(retrained.home, run_id) for run_id in RUN_IDS]
    found = lab.get("assets/events?order_by=timestamp")["asset_events"]
    events = [event for event in found if event["name"] == "homefeed/champion"]
    expected = [p.champion_after.version for p in promotions if p.is_promoted]
    assert [event["extra"]["version"] for event in events] == expected


def test_what_crosses_between_tasks_is_json(lab):
    path = f"dags/homefeed_retrain/dagRuns/{RUN_IDS[0]}/taskInstances"
    for stage in STAGES:
        found = lab.get(f"{path}/{stage}/xcomEntries/return_value?deserialize=true")["value"]
        assert json.loads(json.dumps(found)) == found
        if stage == "resolve_run":
            assert set(found) == {"run_id", "run_uri", "as_of"}
        else:
            assert found.endswith(f"/{stage}/manifest.json")
