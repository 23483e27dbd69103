"""Artifacts: what they own, what they judge, and which request names a resolved run."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.contracts.artifacts import (
    Challenger,
    DataReport,
    ExpectationOutcome,
    FileDigest,
    RunRequest,
    Severity,
)
from pipelines.contracts.code_identity import environment
from pipelines.contracts.run_layout import StageRecord
from support.judgements import CHALLENGER
from support.runs import make_run


def make_request(**changes: object) -> RunRequest:
    fields = {
        "recipe": "smoke",
        "as_of": None,
        "now": datetime(2026, 1, 5, 6, tzinfo=UTC),
        "may_promote": True,
        "num_devices": 1,
        "trigger": "by hand",
    }
    return RunRequest(**(fields | changes))


def test_recipe_trigger_and_day_name_a_cycle() -> None:
    request = make_request()
    assert request.day == datetime(2026, 1, 5, tzinfo=UTC)
    assert request.run_id.startswith("2026-01-05--")
    later = make_request(now=datetime(2026, 1, 5, 23, tzinfo=UTC), may_promote=False)
    assert later.run_id == request.run_id
    for other in ({"recipe": "world"}, {"trigger": "again"}, {"as_of": request.now.replace(day=4)}):
        assert make_request(**other).run_id != request.run_id


def test_the_request_of_a_run_names_that_run(tmp_path: Path) -> None:
    request = make_request(may_promote=False, num_devices=2, accelerator="gpu")
    run = make_run(tmp_path, as_of=request.day, run_id=request.run_id, **request.options())
    again = run.to_request()
    assert again.run_id == run.run_id
    assert again.options() == request.options()


def report(*named: str) -> DataReport:
    """Return a report on expectations: critical ones, but for 'warned', and unmet but for 'met'."""
    outcomes = tuple(
        ExpectationOutcome(
            name=name,
            description="",
            severity=Severity.WARNING if name == "warned" else Severity.CRITICAL,
            is_met=name == "met",
            is_unmeasured=name == "unmeasured",
            accepted_by="Ada" if name == "accepted" else "",
            observed="1",
            expected="2",
        )
        for name in named
    )
    return DataReport(
        outcomes=outcomes, snapshot_digest="s", docs_uri="file:///docs", reference_digest=None
    )


def names(outcomes: tuple[ExpectationOutcome, ...]) -> list[str]:
    return [each.name for each in outcomes]


def test_a_warning_refuses_nothing_and_comes_after_what_does() -> None:
    assert report("met", "warned", "accepted").is_accepted
    refused = report("warned", "met", "broken")
    assert not refused.is_accepted and refused.places() == {"file:///docs": None}
    assert (names(refused.failures), names(refused.warnings)) == (["broken", "warned"], ["warned"])


def test_causes_leave_out_what_could_not_be_measured_because_of_them() -> None:
    assert names(report("unmeasured", "broken", "warned").causes) == ["broken", "warned"]
    # Nothing else stops the cycle: then this does, and is told.
    assert names(report("unmeasured", "warned").causes) == ["unmeasured", "warned"]
    assert names(report("unmeasured", "accepted").causes) == ["unmeasured", "accepted"]


def test_a_challenger_owns_every_file_of_its_bundle() -> None:
    challenger = Challenger(
        model=CHALLENGER,
        bundle_uri="file:///bundle",
        bundle_files=(FileDigest(path="bundle.json", sha256="d", num_bytes=2),),
        num_steps=1,
        num_training_examples=1,
        final_training_loss=None,
        seed=1,
    )
    assert challenger.places() == {"file:///bundle": None, "file:///bundle/bundle.json": 2}


def test_a_seal_covers_what_made_it_and_none_is_a_broken_one() -> None:
    said = {"stage": "alert", "input_digest": "i", "artifact": {"a": 1}, "wall_s": 1.0}
    when = datetime(2026, 1, 5, tzinfo=UTC)
    record = StageRecord(**said, made_with=environment(), finished_at=when)
    assert not record.is_sound()
    sealed = record.sealed()
    assert sealed.is_sound() and StageRecord.from_record(sealed.to_record()).is_sound()
    other = environment().model_copy(update={"processor": "another one"})
    assert not sealed.model_copy(update={"made_with": other}).is_sound()
    assert not sealed.model_copy(update={"artifact": {"a": 2}}).is_sound()


def test_a_record_of_another_schema_version_is_refused_with_what_to_do() -> None:
    content = FileDigest(path="a", sha256="b", num_bytes=1).to_record()
    assert content.startswith(b'{\n  "schema_version": 1,')
    assert FileDigest.from_record(content).path == "a"
    for other, found in (
        (content.replace(b'"schema_version": 1', b'"schema_version": 2'), "schema_version is 2"),
        (b'{"path": "a", "sha256": "b", "num_bytes": 1}', "schema_version is missing"),
        (b"{half", "Invalid JSON"),
    ):
        with pytest.raises(ValidationError, match=found) as raised:
            FileDigest.from_record(other)
        assert ("go on with that version" in str(raised.value)) == ("schema" in found)
