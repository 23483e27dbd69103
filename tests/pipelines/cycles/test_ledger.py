"""What was measured online stands beside what its cycle had expected, and says what that means."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress, t

from pipelines import storage
from pipelines.contracts.cycle import Lift
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.judgement import AnchorFacts, Decision, OffPolicyEstimate, Promoted
from pipelines.cycles.index import read_index, refresh_index
from pipelines.cycles.ledger import account, add, foretell, read
from pipelines.registry.history import Move
from pipelines.settings import Settings
from support.commands import as_json, lines, refusal
from support.desk import record_move
from support.judgements import interval, make_judgement, make_model, metric, ruled
from support.runs import make_run, save_artifact, save_run

ANCHORED = ruled(Decision.REJECT, "It lost.").model_copy(update={"promoted": Promoted.ANCHOR})
NAME, WEEK = "homefeed_ranker", timedelta(days=7)
FIRST = (0.01, 0.02, 0.03, 1, 1.9)
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)


def given(low: float, lift: float, high: float, start: float, end: float) -> Lift:
    """Return an entry; times are weeks from the first promotion on."""
    times = {"from": at(start), "to": at(end), "source": "a test"}
    return Lift(metric="repin_volume", low=low, lift=lift, high=high, **times)


def at(weeks: float) -> str:
    return f"{BEGAN + weeks * WEEK:%Y-%m-%dT%H:%M:%S}"


@pytest.fixture
def workspace(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Thirteen models that served a week each, each expected to be better than the one before."""
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", NAME)
    previous, uri = None, storage.to_uri(home / "workspace")
    for week in range(13):
        run = save_run(make_run(home, run_id=f"cycle-{week}", registered_model=NAME))
        change = metric("repin_volume_at_3", interval(week / 1000, week / 1000 - 0.002))
        judged = make_judgement(Decision.PROMOTE, metrics=(change,))
        of = {"estimator": "replay", "num_requests": 9, "effective_size": 9, "baseline": 1.0}
        explored = OffPolicyEstimate(**of, challenger=1.0, relative_change=interval(0.05))
        sides = dict.fromkeys(("recipe", "freshness"), judged.comparison)
        sides |= {"self_test": judged.self_test, "serving": judged.serving}
        more = {"anchor": AnchorFacts(model=make_model("99", BEGAN), **sides)}
        more |= {"estimates": (explored,), "verdict": ANCHORED}
        save_artifact(run, "compare_with_champion", judged.model_copy(update=more))
        model = make_model(str(week + 1), BEGAN + week * WEEK)
        told = {"kind": "promotion", "reason": "It won.", "run_uri": run.run_uri}
        record_move(uri, Move(moved_at=model.as_of, model=model, previous=previous, **told), NAME)
        previous = model
    return uri


def enter_all(workspace: str) -> Iterator[tuple[float, float]]:
    """Enter a lift of each model, six tenths of what was expected and some luck; yield both."""
    rng = np.random.default_rng(3)
    for week in range(1, 13):
        lift = 0.6 * week / 1000 + 0.001 * float(rng.normal())
        add(workspace, NAME, given(lift - 0.002, lift, lift + 0.002, week, week + 0.9))
        yield week / 1000, lift


def test_a_lift_stands_beside_what_the_models_cycle_expected(workspace: str) -> None:
    for _ in range(2):  # Twice the same is one entry.
        entry = add(workspace, NAME, given(*FIRST))
    assert (entry.model, entry.previous) == ("test_ranker v2", "test_ranker v1")
    [pair] = read(workspace, NAME)
    assert pair == entry and pair.offline is not None
    assert (pair.offline.value, list(pair.estimates)) == (0.001, ["replay"])
    [by_gate, by_replay] = account([pair])
    assert (by_gate.estimator, by_gate.num, by_gate.bias) == ("comparison", 1, None)
    assert (by_gate.num_clear, by_gate.num_signs, by_gate.num_covered) == (1, 1, 0)
    assert by_replay.estimator == "replay"


def test_agreement_and_bias_are_those_of_the_numbers(workspace: str) -> None:
    known = np.array(list(enter_all(workspace)))
    apart = known[:, 0] - known[:, 1]
    [by_gate, by_replay] = account(read(workspace, NAME))
    half = t.ppf(0.975, 11) * apart.std(ddof=1) / np.sqrt(12)
    assert by_gate.bias is not None and by_replay.bias is not None
    assert by_gate.bias.value == pytest.approx(apart.mean())
    assert by_gate.bias.high == pytest.approx(apart.mean() + half)
    assert by_replay.bias.value == pytest.approx(0.05 - known[:, 1].mean())
    clear = np.abs(known[:, 1]) > 0.002
    assert (by_gate.num_clear, by_gate.num_signs) == (clear.sum(), clear.sum())
    # A half-width of 0.0015 offline and one of 0.002 online.
    assert by_gate.num_covered == (np.abs(apart) <= np.hypot(0.0015, 0.002)).sum()


def test_a_change_means_what_the_line_through_the_entries_says(workspace: str) -> None:
    known = list(enter_all(workspace))
    pairs = read(workspace, NAME)
    assert foretell(pairs[:9], 0.01) is None
    found = foretell(pairs, 0.01)
    assert found is not None and found[1] == 12
    x, y = np.array(known).T
    line = linregress(x, y)
    error = np.sqrt(((y - line.slope * x - line.intercept) ** 2).sum() / 10)
    spread = np.sqrt(1 + 1 / 12 + (0.01 - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    assert found[0].value == pytest.approx(line.slope * 0.01 + line.intercept)
    assert found[0].high - found[0].value == pytest.approx(t.ppf(0.975, 10) * error * spread)


@pytest.mark.parametrize(
    ("lift", "weeks", "says"),
    [
        ((0.03, 0.02, 0.01), (1, 1.9), "low 0.03, lift 0.02, high 0.01 do not ascend"),
        ((-9, 0.0, 0.01), (1, 1.9), "greater than or equal to -1"),
        ((0.0, float("nan"), 1.0), (1, 1.9), "finite number"),
        (FIRST[:3], (1, 2.1), "no one model served in the place"),
        (FIRST[:3], (0, 0.9), "the first one's excepted"),
        (FIRST[:3], (1.9, 1), "no one model served"),
        (FIRST[:3], (-1, 0), "found test_ranker v9 from"),
    ],
)
def test_what_is_no_lift_of_one_model_is_refused(
    workspace: str, lift: tuple, weeks: tuple, says: str
) -> None:
    with pytest.raises((ConfigurationError, ValueError), match=says):
        add(workspace, NAME, given(*lift, *weeks))
    assert read(workspace, NAME) == ()


def test_a_damaged_entry_is_named_and_a_run_that_is_gone_expected_nothing(workspace: str) -> None:
    runs = storage.local_path(workspace) / "runs"
    (runs / "cycle-1").rename(runs / ".gone")
    assert add(workspace, NAME, given(*FIRST)).offline is None
    [path] = (storage.local_path(workspace) / "ledger" / NAME).iterdir()
    path.write_text("{")
    with pytest.raises(DataContractError, match=path.name):
        read(workspace, NAME)
    facts = read_index(workspace, Settings(registered_model=NAME))
    assert path.name in facts.problem and facts.ledger == () and facts.champions


def test_entries_are_given_by_hand_or_by_another_system(workspace: str, tmp_path: Path) -> None:
    entry = {"metric": "repin_volume", "lift": 0.012, "low": 0.002, "high": 0.022}
    entry |= {"from": at(1), "to": at(1.9)}
    words = [word for name, value in entry.items() for word in (f"--{name}", str(value))]
    [said] = lines("ledger", "add", *words)
    told = "test_ranker v2 against test_ranker v1: repin_volume +1.20 % (+0.20 to +2.20)"
    assert said == told
    file = tmp_path / "lifts.json"
    file.write_text(json.dumps([entry, entry | {"from": at(2), "to": at(2.9)}]))
    assert len(as_json("ledger", "add", "--entries", str(file))) == 2
    shown = lines("ledger", "show")
    assert f"{told}, expected +0.10 % (-0.10 to +0.20)" in shown[1] and len(shown) == 4
    assert shown[2].startswith(
        "comparison: of 2 lifts that are surely not zero it had the sign of 2"
    )
    assert len(as_json("ledger", "show")["entries"]) == 2
    for wrong, says in (
        ([entry | {"low": "little"}], "0.low"),
        ([{"lift": 1}], "0.from\n  Field required"),
        ([entry | {"from": "soon"}], "a time"),
        ("x", "expected metric, lift, low, high, start, end, source of each"),
    ):
        file.write_text(json.dumps(wrong))
        assert says in str(refusal("ledger", "add", "--entries", str(file)))


def test_the_home_page_draws_both_numbers_of_each_promotion(workspace: str) -> None:
    list(enter_all(workspace))
    facts = read_index(workspace, Settings(registered_model=NAME))
    assert (len(facts.ledger), facts.accounts[0].num) == (12, 12)
    refresh_index(workspace, NAME)
    html = storage.read_bytes(f"{workspace}/cycles.html").decode()
    part = html.partition('id="ledger"')[2].partition("</ol>")[0]
    assert part.count('<svg class="track') == 24 and "test_ranker v13" in part
