"""`homefeed decay`: models of the registry or trained apart, scored once, what is left out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.decay import Decay, WarmStart, decay_folder
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.decay import lab as room
from pipelines.decay.lab import Lab, days_to_measure, log_to_mlflow
from pipelines.event_log.log_files import open_event_log
from pipelines.recipes import smoke
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from support.bundles import chance_bundle
from support.commands import refusal
from support.desk import Desk
from support.runs import make_run
from support.worlds import write_planted_world
from training.bundle.score_split import score_split
from validation.decay.findings import findings
from validation.decay.windows import ScoredWindow, day_changes
from validation.report.decay_page import draw_days, render_decay

LAST = datetime(2017, 3, 2, tzinfo=UTC)
DAYS = tuple(LAST - timedelta(days=2 * back) for back in reversed(range(7)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_planted_world(home / "event_log")
    return home


@pytest.fixture(scope="module")
def desk(home: Path, store_uri: str) -> Desk:
    """A registry with a model of chance for each day, and their snapshots."""
    desk = Desk(home, store_uri)
    for seed, day in enumerate(DAYS):
        run = make_run(home, as_of=day, **places(desk, seed))
        snapshot = write_snapshot(run)
        desk.register(run, bundle=chance_bundle(home / f"chance-{seed}", snapshot, smoke(), seed))
    return desk


def places(desk: Desk, seed: int) -> dict[str, str]:
    return {
        "registered_model": desk.name,
        "experiment": desk.name,
        "tracking_uri": desk.client.tracking_uri,
        "run_id": f"cycle-{seed}",
    }


def lab_of(desk: Desk, days: tuple[datetime, ...] = DAYS, **more: bool) -> Lab:
    log = {"event_log": str(desk.folder / "event_log"), "experiment": desk.name}
    return Lab(smoke(), desk.settings.model_copy(update=log), days, **more)


@pytest.fixture(scope="module")
def measured(desk: Desk) -> tuple[Lab, list[ScoredWindow]]:
    lab = lab_of(desk)
    return lab, lab.measure()


def test_models_of_the_registry_are_scored_as_they_serve(desk: Desk, measured) -> None:
    """At lags of 1, 2 and 4 windows, also with what users have done until an older model's day."""
    lab, windows = measured
    assert [window.as_of for window in windows] == list(DAYS) and lab.left_out == []
    last = windows[-1]
    assert [*last.live] == [DAYS[2], DAYS[4], DAYS[5], DAYS[6]]
    assert [*last.frozen] == [DAYS[2], DAYS[5]]
    note = storage.read_model((lab.work / f"{DAYS[6]:%Y-%m-%d}" / "made.json").as_uri(), room.Made)
    snapshot, folder = note.snapshot, storage.local_path(note.snapshot.uri)
    for seed in (2, 4, 5, 6):
        scores = score_split(desk.folder / f"chance-{seed}", snapshot, folder, SPLIT_HOLDOUT)
        found = last.live[DAYS[seed]]
        assert np.array_equal(found.ranking_score, scores.ranking_score)
        assert found.probabilities.keys() == {*smoke().features.head_names}
        assert found.holdout_digest == scores.holdout_digest
    stale, fresh = last.frozen[DAYS[2]].ranking_score, last.live[DAYS[6]].ranking_score
    assert 0 < (stale != fresh).mean() < 1  # of those who have done something since


def test_what_was_measured_is_told_and_not_measured_again(
    desk: Desk, measured, monkeypatch
) -> None:
    lab, windows = measured
    found = lab.report(windows, core_hours=0.1, value=0.5)
    place = decay_folder(desk.where[0], smoke().recipe_digest)
    assert storage.read_model(f"{place}/decay.json", Decay) == found
    main, frozen = found.curves[0], found.curves[1]
    assert (main.metric, main.stale, frozen.stale) == ("repin_volume_at_3", "weights", "actions")
    assert [(p.lag_days, p.num_pairs) for p in main.points] == [(2, 6), (4, 5)]  # Of 8 days: three.
    assert found.matrix[0][:3] == (0.0, main_change(windows, 1), main_change(windows, 2))
    assert [arm.name for arm in found.schedules][-1] == "when due"
    table = storage.read_bytes(f"{place}/days.csv").decode().splitlines()
    assert table[0] == "metric,segment,model,day,age_days,change,error"
    assert {row.split(",")[1] for row in table[1:]} == {"all", "core", "non_core"}
    page = storage.read_bytes(f"{place}/decay.html").decode()
    for said in ("after 2 days", "Each model on each window", "costs least", "2017-02-18"):
        assert said in page
    assert found.recipe in page and "<script" not in page
    address = log_to_mlflow(found, lab.settings)
    run_id = address.rsplit("/", 1)[1]
    assert log_to_mlflow(found, lab.settings) == address  # Once more is the same run.
    logged = [each.path for each in desk.client.list_artifacts(run_id, "decay")]
    assert logged == ["decay/days.csv", "decay/decay.html", "decay/decay.json"]
    monkeypatch.setattr(room, "build_of", None)
    monkeypatch.setattr("training.bundle.score_split.score_split", None)
    again = lab_of(desk).measure()
    scores = [[s.ranking_score.sum() for s in w.live.values()] for w in (*windows, *again)]
    assert scores[: len(DAYS)] == scores[len(DAYS) :]


def test_a_chain_of_warm_starts_is_a_schedule_of_its_own(measured) -> None:
    """Models that stand for warm ones: of each window the model of the window before."""
    _, windows = measured
    older = {later.as_of: earlier.as_of for earlier, later in pairwise(windows)}
    chain = [
        replace(each, warm={each.as_of: each.live[older[each.as_of]]} if num else {})
        for num, each in enumerate(windows)
    ]
    warm = WarmStart(training_s=10, scratch_s=30, cycle_s=40)
    about = {"code_digest": "0", "measured_at": DAYS[0]}
    found = findings(chain, smoke(), 0.1, 0.5, warm, **about)
    *_, arm = found.schedules
    assert (arm.name, arm.num_trainings, arm.cycle_share) == ("warm every 2 days", len(DAYS), 0.5)
    target = windows[0].holdout.target_head.name
    sums = [(w.sums(w.as_of, target, "hits").sum(),
             w.sums(older[w.as_of], target, "hits").sum()) for w in windows[1:]]  # fmt: skip
    lost = [0.0, *(1 - old / own for own, old in sums)]
    assert arm.lost.value == pytest.approx(np.mean(lost))
    assert "trainings at 0.50 of a cycle, lost" in render_decay(found)
    broken = [*chain[:-1], replace(chain[-1], warm={})]
    *_, last = findings(broken, smoke(), 0.1, 0.5, warm, **about).schedules
    assert last.name == "when due"


def main_change(windows: list[ScoredWindow], num: int) -> float:
    """The change of the first model on a later window, by hand."""
    window = windows[num]
    old, own = (window.sums(day, "repin", "hits").sum() for day in (DAYS[0], window.as_of))
    return round((old - own) / own, 6)


def test_a_share_of_the_users_is_scored_unless_the_whole_is_asked_for(
    desk: Desk, measured, monkeypatch
) -> None:
    """The same users by every model, live and frozen, with the scores that they have among all."""
    monkeypatch.setattr(room, "_FEWEST_USERS", 10)
    found, whole = lab_of(desk).measure(), measured[1][-1]
    last = found[-1]
    all_users = np.unique(whole.holdout.rows.user_id)
    users = np.unique(last.holdout.rows.user_id)
    assert len(users) == np.ceil(0.4 * len(all_users)) < len(all_users)
    is_drawn = np.isin(whole.holdout.rows.user_id, users)[whole.holdout.rows.request_index]
    for few, many in ((last.live, whole.live), (last.frozen, whole.frozen)):
        assert [*few] == [*many]
        for day, scores in few.items():
            assert np.allclose(scores.ranking_score, many[day].ranking_score[is_drawn])
    told = findings(found, smoke(), None, code_digest="", measured_at=LAST)
    assert 0.4 <= told.user_share < 0.44
    again = lab_of(desk, is_whole=True).measure()[-1]
    assert len(np.unique(again.holdout.rows.user_id)) == len(all_users)
    assert [*again.live] == list(DAYS)


def test_a_model_is_held_against_fresh_ones_day_by_day(measured) -> None:
    """A day of two windows is held against both; a day on which nothing could be lost is blank."""
    _, windows = measured
    found = {(each.model, each.day): each for each in day_changes(windows, "repin")}
    old, lost, fresh = DAYS[0], 0.0, 0.0
    day = (windows[1].begins + timedelta(days=2)).date()  # The first day of the next window, too.
    for window in windows[1:3]:
        of_day = window.holdout.rows.day == (day - window.begins.date()).days
        ours, theirs = (window.sums(d, "repin", "hits")[of_day] for d in (old, window.as_of))
        lost, fresh = lost + (ours - theirs).sum(), fresh + theirs.sum()
    cell = found[old, day]
    assert cell.change == pytest.approx(lost / fresh) and cell.error > 0
    assert cell.age_days == 4  # Two days to the window's first day, and two in it.
    assert all(each.model < windows[-1].as_of for each in found.values())
    nothing = [replace(window) for window in windows[:2]]
    for window in nothing:
        labels = {name: 0 * of for name, of in window.holdout.rows.labels.items()}
        rows = replace(window.holdout.rows, labels=labels)
        object.__setattr__(window, "holdout", replace(window.holdout, rows=rows))
    blank = day_changes(nothing, "repin")
    assert blank and {each.change for each in blank} == {None} and draw_days(blank) is None
    known = [each for each in found.values() if each.change is not None]
    drawn, legend = draw_days([*known, *blank])
    assert drawn == draw_days(known)[0] and legend[4][1] == "0 %"
    assert drawn.count("M") == len(known) and len({colour for colour, _ in legend}) == 9


def test_what_cannot_be_used_is_left_out_by_name(desk: Desk, measured, monkeypatch) -> None:
    """A gap of the registry whose training fails, a damaged bundle, another recipe's."""

    def fails(snapshot: Snapshot, *_: object) -> None:
        raise DataContractError(f"no loss of {snapshot.as_of:%Y-%m-%d}")

    monkeypatch.setattr(room, "train_apart", fails)
    day = DAYS[0] - timedelta(days=2)
    lab = lab_of(desk, (day, *DAYS))
    windows = lab.measure()
    assert [window.as_of for window in windows] == list(DAYS)
    assert lab.left_out == [f"{day:%Y-%m-%d}: no loss of {day:%Y-%m-%d}"]
    other = smoke().model_copy(update={"recipe": "other"})
    training = other.training.model_copy(update={"learning_rate": 0.5})
    lab = Lab(other.model_copy(update={"training": training}), lab.settings, DAYS)
    with pytest.raises(ConfigurationError, match="0 models of .* expected at least 5"):
        lab.measure()


def test_days_lie_in_the_log_and_have_their_labels(home: Path, monkeypatch) -> None:
    event_log = open_event_log((home / "event_log").as_uri())
    days = days_to_measure(event_log, smoke(), None, None, 7)
    assert days[-1] == LAST and set(np.diff(days)) == {timedelta(days=7)}
    assert days_to_measure(event_log, smoke(), days[2], None, 7) == days[2:]
    with pytest.raises(DataContractError, match="complete to 2017-03-02"):
        days_to_measure(event_log, smoke(), None, LAST + timedelta(days=1), 7)
    monkeypatch.setenv("HOMEFEED_HOME", str(home))
    monkeypatch.setenv("HOMEFEED_WORKSPACE", "s3://bucket/workspace")
    assert "expected one, because trainings go on in it" in str(
        refusal("decay", "--recipe", "smoke")
    )
    with pytest.raises(ConfigurationError, match="no folder of this machine"):
        Lab(smoke(), Settings(), days)
