"""A day is measured once, when its labels and rows are there, against the newest model there is."""

import shutil
from datetime import timedelta
from pathlib import Path

from pipelines.contracts.errors import TrackingUnavailableError
from pipelines.monitor.watching import watch
from support.monitored import AT, PROMOTED, TRAINED, Monitored
from support.registered import NOW

DAYS = ["2017-02-26", "2017-02-27", "2017-02-28"]
DAY = timedelta(days=1)


def test_each_mature_day_is_measured_once_against_the_newest_model(monitored: Monitored) -> None:
    found = monitored.look()
    days, before = monitored.days(), {p: p.stat() for p in monitored.folder().iterdir()}
    assert list(days) == DAYS and [f"{day}" for day in found.days] == DAYS
    for day, each in zip(found.days, days.values(), strict=True):
        assert each.challenger_model == monitored.champion
        assert each.baseline_model == monitored.challenger
        assert each.holdout.start.date() == day and each.num_days == 1
        assert each.target_change is not None and each.num_requests > 100
        assert each.find("calibration_ratio.repin") and each.find("hit_at_3.save")
    assert 0 < abs(found.score_shift) < 0.5
    assert found.reference == monitored.challenger.label and found.measured is not None
    again = monitored.look(AT + timedelta(hours=1))
    assert {p: p.stat() for p in monitored.folder().iterdir()} == before
    assert again == found.model_copy(update={"told_at": again.told_at})


def test_days_that_were_trained_on_or_lack_labels_are_not_measured(monitored: Monitored) -> None:
    log = Path(monitored.settings.event_log)
    for day in range(25, 32):  # What is left ends with 24 January.
        shutil.rmtree(log / "impressions" / f"day=2017-01-{day}")
    for part in log.glob("impressions/day=2017-0[23]*"):
        shutil.rmtree(part)
    found = monitored.look()
    assert found.days == () and "No day of the champion was measured yet" in found.sentence
    assert not monitored.folder().exists() and monitored.kinds() == ["data_late"]


def test_a_day_that_arrives_a_week_late_enters_when_it_is_there(
    monitored: Monitored, tmp_path: Path
) -> None:
    log = Path(monitored.settings.event_log)
    parts = [table / "day=2017-02-27" for table in (log / "impressions", log / "actions")]
    for part in parts:
        shutil.move(part, tmp_path / part.parent.name)
    assert [f"{day}" for day in monitored.look().days] == [DAYS[0], DAYS[2]]
    for part in parts:
        shutil.move(tmp_path / part.parent.name, part)
    kept = monitored.days()
    assert [f"{day}" for day in monitored.look(AT + 7 * DAY).days] == DAYS
    days = monitored.days()
    assert {day: days[day] for day in kept} == kept
    assert days[DAYS[1]].num_requests > 100


def test_a_reference_that_was_deleted_gives_way_to_what_served_before_or_to_none(
    monitored: Monitored, monitored_world: Path
) -> None:
    client, name = monitored.desk.client, monitored.desk.name
    client.delete_model_version(name, monitored.challenger.version)
    found = monitored.look()
    assert found.measured is None and found.calibration is not None
    cycle = monitored.desk.cycle(2, as_of=TRAINED + 8 * DAY)
    newest = monitored.desk.register(cycle, bundle=monitored_world / "bundle-3")
    monitored.desk.promote(cycle, newest, days=(PROMOTED - NOW) / DAY + 1)
    before, monitored.champion = monitored.champion, newest
    assert monitored.look().reference == before.label
    assert all(each.baseline_model == before for each in monitored.days().values())


def test_files_of_a_reference_that_are_gone_are_no_reference(monitored: Monitored) -> None:
    run_id = monitored.challenger.mlflow_run_id
    uri = monitored.desk.client.get_run(run_id).info.artifact_uri
    shutil.rmtree(f"{uri}/model".removeprefix("file://"))
    found = monitored.look()
    assert len(found.days) == 3 and "against no other model unknown" in found.sentence


def test_without_mlflow_the_rest_is_told_and_nothing_is_written(
    monitored: Monitored, unused_url: str
) -> None:
    there = monitored.settings.model_copy(update={"tracking_uri": unused_url})
    _, errors = watch(there, AT + 9 * DAY)
    assert {type(error) for error in errors} == {TrackingUnavailableError}
    assert monitored.kinds() == ["data_late"] and not monitored.days()
