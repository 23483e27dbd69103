"""What of a rebuilt cycle is equal to its record: digests of contents, never of places.

Left out are URIs, ids of MLflow runs, and what is measured anew at every run: latency and memory of
the serving check. A bundle's description names the code that wrote it; it counts as equal where it
is equal but for that name, for the code is compared on its own (`pipelines.reproduction.causes`).
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pipelines import storage
from pipelines.contracts.artifacts import (
    Challenger,
    DataReport,
    FreshAnchor,
    ResolvedRun,
    Snapshot,
    StageRecord,
)
from pipelines.contracts.base import digest_of
from pipelines.contracts.judgement import Judgement

_MAX_SHOWN = 8
_ABSENT = "nothing"
_DIGEST = re.compile("[0-9a-f]{64}")
_WEIGHTS, _DESCRIPTION, _SCORES = "weights.safetensors", "bundle.json", "golden.safetensors"
_NAMES = {_WEIGHTS: "weights", _DESCRIPTION: "description", _SCORES: "example scores"}
_OF_A_MODEL = {"mlflow_run_id", "bundle_digest"}
"""Fields by which a `ModelRef` is known among JSON values."""
_OF_A_REGISTRY = {"mlflow_run_id", "bundle_digest", "model_digest"}
"""Fields of a `ModelRef` that are left out of comparisons; the bundle is compared by its files."""


@dataclass(frozen=True)
class Fact:
    """One thing that a stage made: what it is told from, and what can be said of differences."""

    digest: str
    content: Any = None  # JSON-able; None where the digest is all


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
    stage: str, run: ResolvedRun, then: StageRecord | None, now: StageRecord | None, why_not: str
) -> list[Finding]:
    """Return what of a stage's work is equal.

    Args:
        stage: The stage.
        run: The original run.
        then: The original record; None: the stage never ended.
        now: The rebuilt one; None: it was not rebuilt.
        why_not: Why it was not rebuilt.
    """
    if then is None:
        return [Finding(stage, "all of it", "not on record")]
    known = facts_of(stage, then)
    if now is None:
        return [
            Finding(stage, what, "not rebuilt", fact.digest, details=(why_not,) if why_not else ())
            for what, fact in known.items()
        ]
    found = facts_of(stage, now)
    if stage in ("train_challenger", "train_anchor"):
        found = _under_former_code(found, stage, run, then, now)
    return [_finding(stage, what, known.get(what), found.get(what)) for what in {**known, **found}]


def _finding(stage: str, what: str, then: Fact | None, now: Fact | None) -> Finding:
    if then is not None and now is not None and then.digest == now.digest:
        return Finding(stage, what, "equal", then.digest, now.digest)
    contents = [fact.content if fact else _ABSENT for fact in (then, now)]
    details = list(differences(*contents)) if None not in contents else []
    more = [f"and {len(details) - _MAX_SHOWN} more"] if len(details) > _MAX_SHOWN else []
    return Finding(
        stage,
        what,
        "differs",
        then.digest if then else _ABSENT,
        now.digest if now else _ABSENT,
        (*details[:_MAX_SHOWN], *more),
    )


def facts_of(stage: str, record: StageRecord) -> dict[str, Fact]:
    """Return what a stage made, by name."""
    artifact = record.artifact
    if stage == "build_snapshot":
        return _of_snapshot(Snapshot.model_validate(artifact))
    if stage == "check_snapshot":
        return _of_report(DataReport.model_validate(artifact))
    if stage == "train_challenger":
        return _of_challenger("challenger", Challenger.model_validate(artifact))
    if stage == "train_anchor":
        return _of_anchor(FreshAnchor.model_validate(artifact))
    return _of_judgement(Judgement.model_validate(artifact))


def _fact(content: Any, said: str = "") -> Fact:
    digest = digest_of(content)
    return Fact(f"{said} {digest}" if said else digest, content)


def _of_snapshot(snapshot: Snapshot) -> dict[str, Fact]:
    counts = snapshot.model_dump(mode="json", exclude={"uri", "digest", "files", "features"})
    files = {file.path: file.sha256 for file in snapshot.files}
    return {"snapshot": Fact(snapshot.digest, {**counts, "files": files})}


def _of_report(report: DataReport) -> dict[str, Fact]:
    outcomes = [outcome.model_dump(mode="json") for outcome in report.outcomes]
    said = "accepted" if report.is_accepted else "refused"
    content = {"outcomes": outcomes, "reference_digest": report.reference_digest}
    return {"ruling of the data gate": _fact(content, said)}


def _of_challenger(whose: str, challenger: Challenger) -> dict[str, Fact]:
    counts = {"num_steps", "num_training_examples", "final_training_loss", "seed"}
    found = {
        f"{whose}: {_NAMES.get(file.path, file.path)}": Fact(file.sha256)
        for file in sorted(challenger.bundle_files, key=lambda file: file.path != _WEIGHTS)
    }
    found = found or {f"{whose}: bundle": Fact(challenger.model.bundle_digest)}
    steps = challenger.model_dump(mode="json", include=counts)
    trained_on = challenger.model.snapshot_digest
    return {
        **found,
        f"{whose}: steps and loss": _fact(steps, f"{challenger.num_steps} steps"),
        f"{whose}: trained on snapshot": Fact(trained_on),
    }


def _of_anchor(fresh: FreshAnchor) -> dict[str, Fact]:
    why = fresh.model_dump(mode="json", include={"reason", "problem"})
    said = "trained" if fresh.trained else "not trained"
    found = {"fresh anchor": _fact(why, said)}
    return found | (_of_challenger("fresh anchor", fresh.trained) if fresh.trained else {})


def _of_judgement(judgement: Judgement) -> dict[str, Fact]:
    """Return the comparison in parts, and the verdict without what was measured anew."""
    said = _without_places(judgement.model_dump(mode="json"))
    anchor = said["anchor"] or {}
    measured = [judgement.serving] + ([judgement.anchor.serving] if judgement.anchor else [])
    sentences = {text for each in measured for text in (each.describe(), *each.problems)}
    verdict = said["verdict"]
    verdict["reasons"] = [text for text in verdict["reasons"] if text not in sentences]
    others = ("estimates", "operating_curve", "tries")
    return {
        "holdout rows": Fact(judgement.comparison.holdout_digest),
        "metrics and intervals": _fact(said["comparison"]),
        "self-test of the gate": _fact(said["self_test"]),
        "anchor": _fact(
            {"anchor": anchor and {**anchor, "serving": None}, "note": said["anchor_note"]}
        ),
        "estimates and operating curve": _fact({name: said[name] for name in others}),
        "verdict": _fact({**verdict, "problem": said["problem"]}, judgement.verdict.decision),
    }


def _without_places(value: Any) -> Any:
    """Return a JSON value whose references to models say which model, and not where it was kept."""
    if isinstance(value, dict):
        is_model = value.keys() >= _OF_A_MODEL
        return {
            name: _without_places(inner)
            for name, inner in value.items()
            if not (is_model and name in _OF_A_REGISTRY)
        }
    return [_without_places(inner) for inner in value] if isinstance(value, list) else value


def _under_former_code(
    found: dict[str, Fact], stage: str, run: ResolvedRun, then: StageRecord, now: StageRecord
) -> dict[str, Fact]:
    """Return the facts with the bundle's description as the former code would have signed it.

    The file of example scores names the digest of the description, so it is another one as well.
    """
    from training.bundle.files import as_written_beside, read_config

    artifact = now.artifact if stage == "train_challenger" else now.artifact["trained"]
    names = {file: name for name in found for file in _NAMES if name.endswith(f": {_NAMES[file]}")}
    if _DESCRIPTION not in names or artifact is None:
        return found
    made = then.made_with
    code = {
        "code_version": made.code_version if made else run.code_version,
        "code_digest": made.code_digest if made else run.code_digest,
    }
    folder = storage.local_path(artifact["bundle_uri"])
    text = read_config(folder).model_copy(update=code).model_dump_json(indent=2).encode()
    contents = {_DESCRIPTION: text, _SCORES: as_written_beside(folder, text)}
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    return {**found, **{names[file]: Fact(digest) for file, digest in digests.items()}}


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
    yield f"{place or 'all of it'}: {_short(then)} then, {_short(now)} now"


def _named(values: list[Any]) -> dict[str, Any]:
    """Return a list's values by what they are about, where they say so, or else by their number."""
    named = {}
    for number, value in enumerate(values):
        about = value if isinstance(value, dict) else {}
        parts = [str(about[key]) for key in ("name", "metric", "segment", "side") if key in about]
        name = " ".join(parts) or f"[{number}]"
        named[name if name not in named else f"{name} [{number}]"] = value
    return named


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if _DIGEST.fullmatch(text):
        return text[:12]
    return text if len(text) <= 70 else f"{text[:67]}..."
