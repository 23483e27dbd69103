"""The record of a past cycle, what of it is equal to the rebuilt one, and what has changed since.

A stage's work is held against the record as named facts: digests of contents, never of places. Left
out are URIs, ids of MLflow runs, numbers of versions, and what is measured anew at every run:
latency and memory of the serving check. Of a bundle the weights are compared: its description names
the code that wrote it, which is compared on its own, and its example scores name the description.

What has changed since is told beside it: data, code, packages, processor. Whether it made a
difference is for the findings to say: a partition that was written again may hold the same rows,
and a newer package may give the same bytes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines import storage
from pipelines.contracts.artifacts import (
    Challenger,
    DataReport,
    FreshAnchor,
    ResolvedRun,
    Snapshot,
)
from pipelines.contracts.base import Artifact, digest_of
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Judgement, ServingCheck
from pipelines.contracts.run_layout import StageRecord, listing_uri, manifest_uri
from pipelines.contracts.stage_table import HEAVY, TABLE
from pipelines.event_log.reader import Listing
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, read_record

REBUILT = tuple(HEAVY)
"""Stages that are made again. The others move the champion and tell people."""
REPAIR = (
    "of a record nothing is to be written over: put a sound copy of the run's folder back, check "
    "out the code that wrote it, or name another run"
)
"""What a person does about a record that is missing or cannot be read."""
_MAX_SHOWN, _MAX_FILES = 8, 20
_ABSENT = "nothing"
_WEIGHTS = "weights.safetensors"
_STEPS = {"num_steps", "num_training_examples", "final_training_loss", "seed"}
_PLACES = {"version", "mlflow_run_id", "bundle_digest", "model_digest"}
"""Fields of a `ModelRef` that are not compared."""
_REPEATING = {"golden_difference", "score_spread", "saturated_share"}
"""Fields of a `ServingCheck` that the bundle decides, and not the machine's other work."""
_MEASURED_ANEW = ("serving_latency", "serving_memory")
"""Problems of a serving check that depend on the machine's other work."""
Records = Mapping[str, StageRecord]
Facts = dict[str, tuple[str, Any]]
"""By name a digest, before which words for people may stand, and the JSON value behind it, by which
a difference can be placed; None: not kept."""


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


def read_cycle(run: str, settings: Settings) -> PastCycle:
    """Read a cycle's record.

    Args:
        run: URI or path of a run folder, or the name of a run in the settings' workspace.
        settings: Where the workspace is.

    Raises:
        ConfigurationError: there is no such run, or no stage of it has ended that can be rebuilt.
        DataContractError: a manifest was edited, is damaged or of another version.
    """
    run_uri = storage.to_uri(run)
    if "/" not in run and not storage.exists(manifest_uri(run_uri, "resolve_run")):
        run_uri = storage.join(storage.to_uri(settings.workspace_location), "runs", run)
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
    return storage.read_model(uri, Listing, repair) if storage.exists(uri) else None


@dataclass(frozen=True)
class Finding:
    """One thing, then and now."""

    stage: str
    what: str
    state: Literal["equal", "differs", "not rebuilt", "not on record"]
    then: str = ""
    now: str = ""
    details: tuple[str, ...] = ()


def compare_stage(
    stage: str, then: StageRecord | None, now: StageRecord | None, why_not: str
) -> list[Finding]:
    """Return what of a stage's work is equal.

    The original record is None where the stage never ended, the rebuilt one where it was not
    rebuilt, which `why_not` explains ('' unknown).
    """
    if then is None:
        return [Finding(stage, "all of it", "not on record")]
    kind = TABLE[stage].gives
    known = facts_of(kind.model_validate(then.artifact))
    if now is None:
        why = (why_not,) if why_not else ()
        return [
            Finding(stage, what, "not rebuilt", digest, details=why)
            for what, (digest, _) in known.items()
        ]
    found = facts_of(kind.model_validate(now.artifact))
    findings: list[Finding] = []
    for what in {**known, **found}:
        former, before = known.get(what, (_ABSENT, _ABSENT))
        today, after = found.get(what, (_ABSENT, _ABSENT))
        details: list[str] = []
        if former != today and None not in (before, after):
            details = list(differences(before, after))
            if (more := len(details) - _MAX_SHOWN) > 0:
                details = [*details[:_MAX_SHOWN], f"and {more} more"]
        state: Literal["equal", "differs"] = "equal" if former == today else "differs"
        findings.append(Finding(stage, what, state, former, today, tuple(details)))
    return findings


def facts_of(made: Artifact, whose: str = "challenger") -> Facts:
    """Return what a stage made, by name."""

    def of(content: Any, said: str = "") -> tuple[str, Any]:
        return f"{said} {digest_of(content)}".strip(), content

    match made:
        case Snapshot():
            counts = made.model_dump(mode="json", exclude={"uri", "digest", "files", "features"})
            counts["files"] = {file.path: file.sha256 for file in made.files}
            return {"snapshot": (made.digest, counts)}
        case DataReport():
            content = made.model_dump(mode="json", include={"outcomes", "reference_digest"})
            said = "accepted" if made.is_accepted else "refused"
            return {"ruling of the data gate": of(content, said)}
        case Challenger():
            steps = made.model_dump(mode="json", include=_STEPS)
            return {
                **{
                    f"{whose}: weights": (file.sha256, None)
                    for file in made.bundle_files
                    if file.path == _WEIGHTS
                },
                f"{whose}: steps and loss": of(steps, f"{made.num_steps} steps"),
                f"{whose}: trained on snapshot": (made.model.snapshot_digest, None),
            }
        case FreshAnchor():
            why = made.model_dump(mode="json", include={"why", "problem"})
            found = {"fresh anchor": of(why, "trained" if made.trained else "not trained")}
            return found | (facts_of(made.trained, "fresh anchor") if made.trained else {})
        case Judgement():
            anchor, checks = None, _serving_checks(made)
            if made.anchor is not None:
                anchor = _unnamed(made.anchor.model_dump(mode="json", exclude={"serving"}))
            others = {"estimates", "operating_curve", "tries"}
            # The verdict without what was measured anew.
            verdict = made.verdict.model_dump(mode="json", exclude={"grounds"})
            grounds = [each.model_dump(mode="json") for each in made.verdict.repeatable]
            verdict |= {"grounds": _unnamed(grounds), "problem": made.problem}
            compared = _unnamed(made.comparison.model_dump(mode="json"))
            return {
                "holdout rows": (made.comparison.holdout_digest, None),
                "metrics and intervals": of(compared),
                "self-test of the gate": of(made.self_test.model_dump(mode="json")),
                "anchor": of(anchor),
                "serving check": of(
                    {who: each.model_dump(include=_REPEATING) for who, each in checks.items()}
                ),
                "estimates and operating curve": of(made.model_dump(mode="json", include=others)),
                "verdict": of(verdict, made.verdict.decision),
            }
    raise TypeError(f"nothing is compared of a {type(made).__name__}")


def _unnamed(value: Any) -> Any:
    """Return a JSON value without what names registered models, which have other numbers here.

    A bundle is compared by its weights, so that its digests are left out too.
    """
    if isinstance(value, list):
        return [_unnamed(each) for each in value]
    if not isinstance(value, dict):
        return value
    left_out = _PLACES if "mlflow_run_id" in value else set()
    return {
        name: _unnamed(each)
        for name, each in value.items()
        if name not in left_out and not (name == "model" and isinstance(each, str))
    }


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
        parts = [str(about[key]) for key in ("name", "metric", "segment", "side") if key in about]
        name = " ".join(parts) or f"[{number}]"
        named[name if name not in named else f"{name} [{number}]"] = value
    return named


def changes_since(past: PastCycle, rebuilt: Records, now: Listing | None) -> list[str]:
    """Return in sentences all that is not as it was.

    Records are those of rebuilt stages by name; the event log's files are as they were read for
    rebuilding, None where they were not.
    """
    data: list[str] = []
    if now is not None and past.listing is None:
        data = ["data: the list of the files that were read is gone, so they are not compared"]
    elif now is not None and past.listing is not None:
        before, after = (
            {file.path: file.model_dump(mode="json", exclude={"path"}) for file in each.files}
            for each in (past.listing, now)
        )
        for path in sorted(before.keys() | after.keys()):
            if said := "; ".join(differences(before.get(path, {}), after.get(path, {}))):
                data.append(f"data: {path}: {said}")
    if (more := len(data) - _MAX_FILES) > 0:
        data = [*data[:_MAX_FILES], f"data: and {more} more files"]
    stages: dict[str, list[str]] = {}  # of each difference of code, packages and processor
    for name, record in rebuilt.items():
        then, today = past.records.get(name), record.made_with
        if then is None or then.made_with is None or today is None:
            continue
        # A commit to the documentation changes the version alone.
        is_same = then.made_with.project_digest == today.project_digest
        left_out = {"code_version"} if is_same else set()
        former, current = (e.model_dump(exclude=left_out) for e in (then.made_with, today))
        for sentence in differences(former, current):
            since = f"{sentence} (on {then.finished_at:%Y-%m-%d}"
            stages.setdefault(since, []).append(name)
    environment = [f"{sentence}: {', '.join(names)})" for sentence, names in stages.items()]
    return [*data, *environment, *_model_changes(past, rebuilt)]


def _model_changes(past: PastCycle, rebuilt: Records) -> Iterator[str]:
    """Yield what of the models could not be made or measured as it was, if so.

    The fresh anchor may have been trained by the accepted code, installed beside the cycle's
    (HOMEFEED_ANCHOR_CODE), which is not asked when a cycle is rebuilt. Latency and memory of a
    serving check are compared with nothing, but the verdict is made of them.
    """
    stage = "train_anchor"
    if stage in past.records and stage in rebuilt:
        then = FreshAnchor.model_validate(past.records[stage].artifact).code_digest
        if then not in ("", code_digest(), past.run.code_digest):
            yield (
                f"fresh anchor: trained by code {then[:12]}, as where HOMEFEED_ANCHOR_CODE names "
                f"the accepted code; rebuilt by the code that is installed, {code_digest()[:12]}"
            )
    stage = "compare_with_champion"
    if stage in past.records and stage in rebuilt:
        sides = (Judgement.model_validate(each[stage].artifact) for each in (past.records, rebuilt))
        before, after = (
            {
                who: " and ".join(p.code for p in check.problems if p.code in _MEASURED_ANEW)
                or "within its limits"
                for who, check in _serving_checks(each).items()
            }
            for each in sides
        )
        for found in differences(before, after):
            yield f"serving check, measured anew, on which the verdict depends: {found}"


def _serving_checks(judged: Judgement) -> dict[str, ServingCheck]:
    """Return the serving checks of a judgement, by whose they are."""
    anchor = {"fresh anchor": judged.anchor.serving} if judged.anchor else {}
    return {"challenger": judged.serving, **anchor}
