"""Shards get their place whole and once, and what a killed driver has left is removed."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import FileDigest
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import digest_files
from pipelines.snapshot.spark.placing import SharedFolder, StoreFolder, place_for_shards

NAME = "shard-00003"


@pytest.fixture
def place(tmp_path: Path) -> SharedFolder:
    (tmp_path / "scratch" / "out").mkdir(parents=True)
    return SharedFolder(tmp_path / "scratch")


def write(folder: Path) -> None:
    (folder / "users.arrow").write_text("rows")


def left_by(place: SharedFolder) -> list[list[str]]:
    """Return the shards, and the attempts that are left."""
    return [[each.name for each in (place.scratch / n).iterdir()] for n in ("out", "attempts")]


def test_the_attempt_counts_whose_answer_came_and_no_other_touches_it(place: SharedFolder) -> None:
    """What remains of a killed executor sees its input end early, and ends its shard."""
    attempts = [f"{NAME}-{number}" for number in (1, 2)]
    with place.receive(attempts[0]) as cut:
        (cut / "users.arrow").write_text("ro")
    with place.receive(attempts[1]) as whole:
        write(whole)
        [found] = digest_files(whole)
    file = found.model_copy(update={"path": f"{NAME}/{found.path}"})
    place.bring([file], {NAME: attempts[1]}, "")
    assert (place.scratch / "out" / NAME / "users.arrow").read_text() == "rows"
    assert left_by(place) == [[NAME], attempts[:1]]


def test_an_attempt_that_fails_leaves_nothing(place: SharedFolder, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="there"), place.receive(NAME) as folder:
        write(folder)
        raise FileExistsError(17, "there")
    assert left_by(place) == [[], []]
    gone = SharedFolder(tmp_path / "gone")  # of an executor that outlives its driver
    says = pytest.raises(ConfigurationError, match="finds no folder .*HOMEFEED_WORKSPACE")
    with says, gone.receive(NAME):
        pass
    assert not gone.scratch.exists()


def test_a_driver_that_does_not_find_the_files_says_what_to_change(place: SharedFolder) -> None:
    with place.receive(f"{NAME}-1") as folder:
        write(folder)
        [found] = digest_files(folder)
    missing = FileDigest(path=f"{NAME}/examples.arrow", sha256="0" * 64, num_bytes=4)
    longer = found.model_copy(update={"path": f"{NAME}/{found.path}", "num_bytes": 5})
    for file in (missing, longer):
        with pytest.raises(ConfigurationError, match="see the workspace at the same path"):
            place.bring([file], {NAME: f"{NAME}-1"}, "")


def test_in_a_store_shards_are_copied_and_what_killed_drivers_left_goes(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots, target = f"{s3_uri}/snapshots", f"{s3_uri}/snapshots/0123456789abcdef"
    left = f"{snapshots}/.scratch-{'0' * 32}"
    storage.write_bytes(f"{left}/{NAME}/users.arrow", b"ro")
    with place_for_shards(snapshots, tmp_path):
        assert storage.exists(left), "it is young: its driver may be at work"
    monkeypatch.setattr(storage, "ABANDONED_AFTER", timedelta(seconds=-5))
    with place_for_shards(snapshots, tmp_path) as place, place_for_shards(snapshots, tmp_path):
        assert isinstance(place, StoreFolder) and not storage.exists(left)
        with place.receive(f"{NAME}-1") as folder:
            write(folder)
            [file] = digest_files(folder)
        assert storage.exists(f"{place.uri}/{NAME}-1/users.arrow")
        named = file.model_copy(update={"path": f"{NAME}/{file.path}"})
        place.bring([named], {NAME: f"{NAME}-1"}, target)
    assert storage.read_bytes(f"{target}/{NAME}/users.arrow") == b"rows"
    assert storage.list_names(snapshots) == ["0123456789abcdef"]
