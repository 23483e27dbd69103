"""Artifacts: what they own, what they judge, and which request names a resolved run."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.contracts.artifacts import FileDigest, RunRequest
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.code_identity import environment
from pipelines.contracts.judgement import Approval
from pipelines.contracts.run_layout import AcceptedShift, StageRecord
from pipelines.registry.evidence import JudgedSnapshot
from pipelines.registry.history import Followed
from support.judgements import CHALLENGER, make_report
from support.registered import challenger_of
from support.runs import make_run
from support.snapshots import snapshot_of

MORNING = datetime(2026, 1, 5, 6, tzinfo=UTC)


def make_request(**changes: Any) -> RunRequest:
    fields = {"recipe": "smoke", "as_of": None, "now": MORNING, "trigger": "by hand"}
    return RunRequest(**({"may_promote": True, "num_devices": 1} | fields | changes))


def test_recipe_trigger_and_day_name_a_cycle_and_its_run_is_asked_for_by_the_same(
    tmp_path: Path,
) -> None:
    request = make_request(may_promote=False, num_devices=2, accelerator="gpu")
    assert request.day == MORNING.replace(hour=0) and request.run_id.startswith("2026-01-05--")
    assert make_request(now=MORNING.replace(hour=23)).run_id == request.run_id
    for other in ({"recipe": "world"}, {"trigger": "again"}, {"as_of": MORNING.replace(day=4)}):
        assert make_request(**other).run_id != request.run_id
    run = make_run(tmp_path, as_of=request.day, run_id=request.run_id, **request.options())
    again = run.to_request()
    assert (again.run_id, again.options()) == (run.run_id, request.options())


STATES = {
    "met": {},
    "warned": {"is_met": False, "severity": "warning"},
    "broken": {"is_met": False},
    "unmeasured": {"is_met": False, "is_unmeasured": True},
    "accepted": {"is_met": False, "accepted_by": "Ada"},
}


@pytest.mark.parametrize(
    ("named", "is_accepted", "warnings", "causes"),
    [
        ("met warned accepted", True, "accepted warned", "accepted warned"),
        ("warned met broken", False, "warned", "broken warned"),
        ("unmeasured broken warned", False, "warned", "broken warned"),
        # Nothing else stops the cycle: then this does, and is told.
        ("unmeasured warned", False, "warned", "unmeasured warned"),
        ("unmeasured accepted", False, "accepted", "unmeasured accepted"),
    ],
)
def test_a_report_tells_what_refuses_from_warnings_and_from_what_follows(
    named: str, is_accepted: bool, warnings: str, causes: str
) -> None:
    found = make_report(**{name: STATES[name] for name in named.split()})
    assert found.is_accepted == is_accepted and found.places() == {"file:///docs": None}
    assert [each.name for each in found.warnings] == warnings.split()
    assert [each.name for each in found.causes] == causes.split()


def test_a_challenger_owns_every_file_of_its_bundle() -> None:
    files = (FileDigest(path="bundle.json", sha256="d", num_bytes=2),)
    made = challenger_of(CHALLENGER).model_copy(update={"bundle_files": files})
    assert made.places() == {"file:///nowhere": None, "file:///nowhere/bundle.json": 2}


WORD = AcceptedShift(expectation="rows", by="Ada", reason="a holiday", accepted_at=MORNING)
ANSWER = Approval(model="m v1", ruling_digest="r", answer="approved", by="Ada", at=MORNING)
MARK = JudgedSnapshot(as_of=MORNING, snapshot_uri="file:///s", recipe="smoke")
MANIFEST = StageRecord(
    **{"stage": "alert", "input_digest": "i", "artifact": {"a": 1}, "wall_s": 1.0},
    **{"made_with": environment(), "finished_at": MORNING},
)


@pytest.mark.parametrize(
    ("record", "edit"),
    [
        (Followed(sha256="a", was_set_again=False), {"was_set_again": True}),
        (MARK, {"snapshot_uri": "file:///other"}),
        (WORD, {"by": "Eve"}),
        (ANSWER, {"model": "m v2"}),
        (snapshot_of(), {"num_pins": 99}),
        (MANIFEST, {"artifact": {"a": 2}}),
        (MANIFEST, {"made_with": environment().model_dump() | {"processor": "another one"}}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_record_is_sealed_and_one_without_a_seal_is_none(record: Frozen, edit: dict) -> None:
    found = json.loads(record.to_record())
    assert type(record).from_record(json.dumps(found).encode()) == record
    for edited in (found | edit, found | {"seal": ""}, {**found, "seal": None}):
        with pytest.raises(ValidationError, match="it was edited: its seal does not fit"):
            type(record).from_record(json.dumps(edited).encode())
    del found["seal"]
    with pytest.raises(ValidationError, match="it was edited: its seal does not fit"):
        type(record).from_record(json.dumps(found).encode())


def test_a_manifest_of_version_2_is_held_to_the_seal_that_it_had() -> None:
    found = json.loads(MANIFEST.to_record()) | {"schema_version": 2}
    names = ("stage", "input_digest", "artifact", "made_with", "recipe")
    found["seal"] = digest_of([found[name] for name in names])
    assert StageRecord.from_record(json.dumps(found).encode()) == MANIFEST
    for edited in ({"artifact": {"a": 2}}, {"seal": ""}):
        with pytest.raises(ValidationError, match="it was edited"):
            StageRecord.from_record(json.dumps(found | edited).encode())
