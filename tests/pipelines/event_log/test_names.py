"""Names of ids: found by id in every increment of a log, and only where its writer kept them."""

from pathlib import Path

from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.names import has_names, names_of
from pipelines.sources import EventLogWriter
from pipelines.sources.writer.batches import id_of
from pipelines.storage import to_uri
from support.own_tables import VERSION, pins, shown_on, write_own_log
from support.tiny_log import write_tiny_log


def test_names_of_every_increment_are_found_by_their_ids(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 1)
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pins(3, 5))
        writer.impressions(shown_on(2, num_requests=4))
    log = open_event_log(to_uri(tmp_path / "log"))
    ids = [id_of("p1"), id_of("p4"), id_of("nobody's"), 7, 2**70]
    assert names_of(log, "pin_id", ids) == {id_of("p1"): "p1", id_of("p4"): "p4"}
    assert names_of(log, "user_id", [id_of("u3"), id_of("p1")]) == {id_of("u3"): "u3"}
    assert has_names(log, "user_id") and has_names(log, "pin_id")


def test_a_log_of_whole_numbers_or_of_another_writer_has_no_names(tmp_path: Path) -> None:
    write_tiny_log(tmp_path / "tiny")
    shown = shown_on(1)
    for name in ("user_id", "pin_id"):
        shown[name] = shown[name].str[1:].astype(int)
    with EventLogWriter(tmp_path / "numbers", VERSION) as writer:
        writer.impressions(shown)
        writer.actions({"user_id": [0], "pin_id": [0], "action_type": ["click"], "acted_at": [
            shown["impressed_at"][0]]})  # fmt: skip
        writer.pins({**pins(), "pin_id": [0, 1, 2]})
        writer.users({"user_id": [0], "as_of": [shown["impressed_at"][0]],
                      "embedding": pins()["embedding"][:1]})  # fmt: skip
    for name in ("tiny", "numbers"):
        log = open_event_log(to_uri(tmp_path / name))
        assert names_of(log, "pin_id", [0, 1, 10]) == {}
        assert not has_names(log, "user_id")
