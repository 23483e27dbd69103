"""`homefeed backtest` and a killed lab: trainings apart, cycles replayed by several gates."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.contracts.decay import Backtest, Decay, Replayed, ReplayedGate
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.contracts.reasons import Interval
from pipelines.decay.backtest import backtest
from pipelines.decay.lab import Lab
from pipelines.recipes import smoke
from pipelines.settings import Settings
from support.serving import wait_until
from support.worlds import write_planted_world

DAY = datetime(2017, 3, 2, tzinfo=UTC)
MADE = ("made.json", "*.safetensors")
WORDS = ("--recipe", "smoke", "--every", "3", "--from", "2017-02-17", "--apart", "--json")


def cycle(is_promoted: bool, low: float, high: float) -> Replayed:
    came = Interval(value=(low + high) / 2, low=low, high=high, confidence=0.95)
    said = {"decision": "PROMOTE" if is_promoted else "REJECT", "reasons": ()}
    return Replayed(as_of=DAY, champion=DAY, is_promoted=is_promoted, came=came, **said)


def test_a_choice_is_wrong_by_what_the_other_one_would_have_brought() -> None:
    good, worse, surely = cycle(True, 0.0, 0.02), cycle(True, -0.03, 0.01), cycle(False, 0.01, 0.05)
    regrets = [each.regret for each in (good, worse, surely) if each.regret]
    assert [each.value for each in regrets] == pytest.approx([-0.01, 0.01, 0.03])
    assert [(each.low, each.high) for each in regrets] == [(-0.02, 0), (-0.01, 0.03), (0.01, 0.05)]
    first = good.model_copy(update={"champion": None, "came": None})
    assert first.regret is None
    assert ReplayedGate(name="strict", cycles=(first, good, worse, surely)).sentence == (
        "strict: promoted 3 of 4; of 3 choices that were seen through, 2 were wrong by what came, "
        "1 of them surely; the other choices would have kept 1.33 % a cycle"
    )


def test_a_gate_changes_the_gate_alone_and_two_take_turns(tmp_path: Path) -> None:
    lab = Lab(smoke(), Settings(home=str(tmp_path)), (DAY,))
    training = smoke().training.model_copy(update={"learning_rate": 0.5})
    other = smoke().model_copy(update={"training": training})
    with pytest.raises(ConfigurationError, match="gate fast changes more than model_gate"):
        backtest(lab, {"fast": other})
    lab.work.mkdir(parents=True)
    with lab.locked(), pytest.raises(RunInProgressError, match="homefeed decay of smoke"):
        backtest(Lab(smoke(), lab.settings, (DAY,)), {"as it is": smoke()})


@pytest.mark.slow
def test_a_killed_lab_goes_on_and_its_models_are_replayed(tmp_path: Path) -> None:
    """No registry hears of it; one gate promotes, and one that asks too much does not."""
    write_planted_world(tmp_path / "event_log", num_users=300)
    tried = {"HOMEFEED_HOME": str(tmp_path), "HOMEFEED_TRACKING_URI": "http://127.0.0.1:9"}

    def begin(*words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pipelines.cli", *words, *WORDS]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=os.environ | tried, **pipes)

    def result(process: "subprocess.Popen[str]") -> str:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
        return out

    def kill(process: "subprocess.Popen[str]") -> dict[Path, int]:
        """Return when each model and each file of scores was written."""
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return {each: each.stat().st_mtime_ns for name in MADE for each in tmp_path.rglob(name)}

    def is_kept(before: dict[Path, int]) -> bool:
        return {path: path.stat().st_mtime_ns for path in before} == before

    killed = begin("decay")
    wait_until(lambda: len([*tmp_path.rglob("made.json")]) >= 2, 200)
    before = kill(killed)
    found = Decay.model_validate(json.loads(result(begin("decay", "--value", "0.5", "--warm"))))
    assert len(found.as_of) == 5 and (found.core_hours or 0) > 0 and found.cadences
    assert len(before) >= 2 and is_kept(before)
    # Of 5 days, 4 begin with the weights of the one before: too few on the next window.
    assert found.warm is not None and found.warm.own and found.warm.later is None
    assert found.warm.training_s > 0 and 0 < (found.warm.cost_share or 0) < 2
    assert len([*tmp_path.rglob("warm-*/made.json")]) == 4 and found.cadences[0].warm
    assert found.schedules[-1].cycle_share == found.warm.cost_share
    [page] = tmp_path.rglob("decay.html")
    assert "a warm start against one from scratch" in page.read_text()
    strict = tmp_path / "strict.yaml"
    strict.write_text(
        "extends: smoke\nmodel_gate: {floors: [{metric: repin_volume_at_3, minimum: 99}]}\n"
    )
    killed = begin("backtest", "--gate", str(strict))
    wait_until(lambda: [*tmp_path.rglob("backtest/*/judged")], 200)
    killed.send_signal(signal.SIGSTOP)
    _, said = begin("backtest").communicate(timeout=60)
    assert "homefeed decay of smoke" in said and "RunInProgressError" in said
    before = kill(killed)
    told = Backtest.model_validate(json.loads(result(begin("backtest", "--gate", str(strict)))))
    assert is_kept(before) and not [*tmp_path.rglob("backtest/*/history*")]
    ours, theirs = told.gates
    assert [each.as_of for each in ours.cycles] == list(found.as_of)
    assert any(each.is_promoted for each in ours.cycles)
    assert not any(each.is_promoted or each.champion for each in theirs.cycles)
    assert any("99" in reason for each in theirs.cycles for reason in each.reasons)
    for each in ours.cycles:
        assert (each.came is not None) == (
            each.champion is not None and each is not ours.cycles[-1]
        )
    [kept] = tmp_path.rglob("backtest.json")
    assert storage.read_model(kept.as_uri(), Backtest) == told
    assert not (tmp_path / "workspace" / "history").exists()
