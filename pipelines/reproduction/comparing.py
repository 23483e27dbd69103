"""The record of a past cycle, what of it is equal to the rebuilt one, and what has changed since.

A stage's work is held against the record as named facts: digests of contents, never of places. Left
out are URIs, ids of MLflow runs, numbers of versions, and what is measured anew at every run:
latency and memory of the serving check. Of a bundle the weights are compared: its description names
the code that wrote it, which is compared on its own, and its example scores name the description.

What has changed since is told beside it: data, code, packages, processor. Whether it made a
difference is for the findings to say: a partition that was written again may hold the same rows,
and a newer package may give the same bytes.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, DataReport, FreshAnchor, ResolvedRun, Snapshot
from pipelines.contracts.base import Artifact, digest_of
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord, listing_uri, manifest_uri
from pipelines.contracts.stage_table import HEAVY, TABLE
from pipelines.event_log.reader import Listing
from pipelines.stages.runner import read_artifact, read_record

REBUILT = tuple(HEAVY)
"""Stages that are made again. The others move the champion and tell people."""
REPAIR = (
    "of a record nothing is to be written over: put a sound copy of the run's folder back, check "
    "out the code that wrote it, or name another run"
)
"""What a person does about a record that is missing or cannot be read."""
_MAX_SHOWN = 20
_ABSENT = "nothing"
_JUDGED = (
    *("comparison", "self_test", "anchor", "serving", "estimates", "operating_curve", "line"),
    "verdict",
)
"""Fields of a `Judgement` that are compared, each of them a fact."""
_ANEW = (
    *("model", "version", "mlflow_run_id", "bundle_digest", "model_digest"),
    *("latency_p50_ms", "latency_p99_ms", "processor_p99_ms", "wall_ratio"),
    *("peak_memory_mib", "problems"),
)
"""Fields of them that are not: models have other numbers here, and the machine has other work."""


@dataclass(frozen=True)
class PastCycle:
    """One cycle, as its run folder has it."""

    run_uri: str  # where the record was read, which may be a copy
    run: ResolvedRun
    records: dict[str, StageRecord]  # of `resolve_run`, and of stages of REBUILT that have ended
    listing: Listing | None  # files of the event log; None where the list is gone

    def stages_until(self, until: str) -> tuple[str, ...]:
        """Return the stages to rebuild: up to the one named, and none after the last on record."""
        last = max(REBUILT.index(name) for name in self.records if name in REBUILT)
        return REBUILT[: min(last, REBUILT.index(until)) + 1]


def read_cycle(run_uri: str) -> PastCycle:
    """Read a cycle's record.

    Raises:
        ConfigurationError: there is no such run, or no stage of it has ended that can be rebuilt.
        DataContractError: a manifest was edited, is damaged or of another version.
    """
    records = {"resolve_run": read_record(run_uri, "resolve_run", REPAIR)}
    resolved = read_artifact(run_uri, "resolve_run", ResolvedRun, REPAIR)
    for name in REBUILT:
        if storage.exists(manifest_uri(run_uri, name)):
            records[name] = read_record(run_uri, name, REPAIR)
            # Before hours of rebuilding, and not after them: it can be compared by today's code.
            read_artifact(run_uri, name, TABLE[name].gives, REPAIR)
    if len(records) == 1:
        raise ConfigurationError(
            f"no stage of run {run_uri} has ended but resolve_run; expected at least a built "
            f"snapshot, with which what is rebuilt can be compared; name another run"
        )
    return PastCycle(run_uri, resolved, records, read_listing(run_uri))


def read_listing(run_uri: str) -> Listing | None:
    """Return what the event log's files were when a run's snapshot was built, if it is on record.

    Raises:
        DataContractError: the file is damaged.
    """
    uri = listing_uri(run_uri)
    repair = "put a sound copy back, or move it away: then no files are compared"
    return storage.find_model(uri, Listing, repair)


@dataclass(frozen=True)
class Finding:
    """One thing, then and now."""

    stage: str
    what: str
    state: Literal["equal", "differs", "not rebuilt", "not on record"]
    then: str = ""
    now: str = ""
    details: tuple[str, ...] = ()


def compare_stage(stage: str, then: StageRecord | None, now: StageRecord | None) -> list[Finding]:
    """Return what of a stage's work is equal.

    The original record is None where the stage never ended, the rebuilt one where it was not
    rebuilt.
    """
    if then is None:
        return [Finding(stage, "all of it", "not on record")]
    if now is None:
        return [Finding(stage, "all of it", "not rebuilt")]
    known, found = (facts_of(TABLE[stage].gives.model_validate(e.artifact)) for e in (then, now))
    findings: list[Finding] = []
    for what in {**known, **found}:
        former, before = known.get(what, (_ABSENT, _ABSENT))
        today, after = found.get(what, (_ABSENT, _ABSENT))
        if former == today:
            findings.append(Finding(stage, what, "equal", former))
        else:
            details = () if None in (before, after) else tuple(_shown(before, after))
            findings.append(Finding(stage, what, "differs", former, today, details))
    return findings


def facts_of(made: Artifact, whose: str = "challenger") -> dict[str, tuple[str, Any]]:
    """Return what a stage made: by name a digest, and the JSON value behind it; None: not kept."""
    content = made.model_dump(mode="json")

    def of(*names: str) -> tuple[str, Any]:
        kept = {name: content[name] for name in names}
        return digest_of(kept), kept

    match made:
        case Snapshot():
            return {"snapshot": (made.digest, _repeating(content, "uri", "digest", "features"))}
        case DataReport():
            return {"ruling of the data gate": of("outcomes", "reference_digest")}
        case Challenger():
            files = {file.path: file.sha256 for file in made.bundle_files}
            steps = ("num_steps", "num_training_examples", "final_training_loss", "seed")
            return {
                f"{whose}: weights": (files.get("weights.safetensors", _ABSENT), None),
                f"{whose}: steps and loss": of(*steps),
                f"{whose}: trained on snapshot": (made.model.snapshot_digest, None),
            }
        case FreshAnchor():
            found = {"fresh anchor": of("why", "problem")}
            return found | (facts_of(made.trained, "fresh anchor") if made.trained else {})
        case Judgement():
            # The verdict without what was measured anew.
            grounds = [each.model_dump(mode="json") for each in made.verdict.repeatable]
            content["verdict"] |= {"grounds": grounds, "problem": made.problem}
            content = _repeating(content, *_ANEW)
            return {name.replace("_", " "): of(name) for name in _JUDGED}
    raise TypeError(f"nothing is compared of a {type(made).__name__}")


def _repeating(value: Any, *left_out: str) -> Any:
    """Return a JSON value without some fields, wherever they stand in it."""
    if isinstance(value, list):
        return [_repeating(each, *left_out) for each in value]
    if not isinstance(value, dict):
        return value
    return {n: _repeating(each, *left_out) for n, each in value.items() if n not in left_out}


def _shown(then: Any, now: Any) -> list[str]:
    """Return the first of the differences."""
    found = list(itertools.islice(differences(then, now), _MAX_SHOWN + 1))
    return found if len(found) <= _MAX_SHOWN else [*found[:-1], "and more"]


def differences(then: Any, now: Any, place: str = "") -> Iterator[str]:
    """Yield where two JSON values differ, as 'place: what was, what is'."""
    if then == now:
        return
    if isinstance(then, list) and isinstance(now, list):
        then, now = _named(then), _named(now)
    if isinstance(then, dict) and isinstance(now, dict):
        for name in {**then, **now}:
            inner = f"{place}.{name}" if place else str(name)
            yield from differences(then.get(name, _ABSENT), now.get(name, _ABSENT), inner)
        return
    texts = [each if isinstance(each, str) else json.dumps(each) for each in (then, now)]
    # A digest has 64 digits, of which people need a few.
    former, today = (
        text[:12] if len(text) == 64 else text if len(text) <= 70 else f"{text[:67]}..."
        for text in texts
    )
    yield f"{place or 'all of it'}: {former} then, {today} now"


def _named(values: list[Any]) -> dict[str, Any]:
    """Return a list's values by what they are about, where they say so, or else by their number."""
    named = {}
    for number, value in enumerate(values):
        about = value if isinstance(value, dict) else {}
        parts = [
            str(about[key]) for key in ("path", "name", "metric", "segment", "side") if key in about
        ]
        name = " ".join(parts) or f"[{number}]"
        named[name if name not in named else f"{name} [{number}]"] = value
    return named


def changes_since(
    past: PastCycle, rebuilt: Mapping[str, StageRecord], now: Listing | None
) -> list[str]:
    """Return in sentences all that is not as it was.

    Records are those of rebuilt stages by name; the event log's files are as they were read for
    rebuilding, None where they were not.
    """
    data: list[str] = []
    if now is not None and past.listing is None:
        data = ["the list of the files that were read is gone, so they are not compared"]
    elif now is not None and past.listing is not None:
        data = _shown(*(each.model_dump(mode="json")["files"] for each in (past.listing, now)))
    stages: dict[str, list[str]] = {}  # of each difference of code, packages and processor
    for name, record in rebuilt.items():
        if (then := past.records.get(name)) is not None:
            for sentence in differences(_conditions(then), _conditions(record)):
                since = f"{sentence} (on {then.finished_at:%Y-%m-%d}"
                stages.setdefault(since, []).append(name)
    environment = [f"{sentence}: {', '.join(names)})" for sentence, names in stages.items()]
    return [*(f"data: {each}" for each in data), *environment]


def _conditions(record: StageRecord) -> dict[str, Any]:
    """Return what a stage was made with, and what of it was measured anew.

    The fresh anchor may have been trained by the accepted code, installed beside the cycle's
    (HOMEFEED_ANCHOR_CODE), which is not asked when a cycle is rebuilt. Problems of a serving check
    are compared with nothing, but the verdict is made of them. A commit to the documentation
    changes the version alone.
    """
    made = record.artifact
    found = record.made_with.model_dump(exclude={"code_version"}) if record.made_with else {}
    if code := made.get("code_digest"):
        found["code_digest"] = code
    for side in filter(None, (made, made.get("anchor"))):
        if "serving" in side:
            codes = [each["code"] for each in side["serving"]["problems"]]
            found["anchor's serving" if side is not made else "serving"] = codes
    return found
