"""What a stage made, as named facts: digests of contents, never of places.

Left out are URIs, ids of MLflow runs, and what is measured anew at every run: latency and memory of
the serving check. A bundle's description names the code that wrote it; a rebuilt one is taken as
that code would have signed it, for the code is compared on its own, in `causes`. Not for comparing:
that is `pipelines.reproduction.findings`.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, DataReport, FreshAnchor, ResolvedRun, Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.files import digest_of_files
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord

_WEIGHTS, _DESCRIPTION, _SCORES = "weights.safetensors", "bundle.json", "golden.safetensors"
_NAMES = {_WEIGHTS: "weights", _DESCRIPTION: "description", _SCORES: "example scores"}
_OF_A_MODEL = {"mlflow_run_id", "bundle_digest"}
"""Fields by which a `ModelRef` is known among JSON values."""
_OF_A_REGISTRY = {"mlflow_run_id", "bundle_digest", "model_digest"}
"""Fields of a `ModelRef` that are left out of comparisons; the bundle is compared by its files."""
_REPEATING = {"golden_difference", "score_spread", "saturated_share"}
"""Fields of a `ServingCheck` that the bundle decides, and not the machine's other work."""
CodeNames = dict[str, str]
"""`code_version` and `code_digest`, as a bundle's description has them."""


@dataclass(frozen=True)
class Fact:
    """One thing that a stage made."""

    digest: str
    """Equal where the thing is equal. Words for people may stand before it: '320 steps 1a2b...'."""
    content: Any = None
    """The JSON value behind the digest, by which a difference can be placed; None: not kept."""


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
    if stage == "compare_with_champion":
        return _of_judgement(Judgement.model_validate(artifact))
    return {stage: _fact(artifact)}


def facts_like(
    stage: str, run: ResolvedRun, then: StageRecord, now: StageRecord
) -> dict[str, Fact]:
    """Return what a rebuilt stage made, in the terms of its record.

    A bundle is signed as the record's is, and is one fact where the record does not list its files.

    Args:
        stage: The stage.
        run: The original run.
        then: The original record.
        now: The rebuilt one.
    """
    former, rebuilt = trained_by(stage, then), trained_by(stage, now)
    if rebuilt is None or not rebuilt.bundle_files:
        return facts_of(stage, now)
    names = _names_in(former) if former else None
    signed = _signed(rebuilt, names or _names_by(run, then))
    if former is not None and not former.bundle_files:
        signed = signed.model_copy(update={"bundle_files": ()})
    if stage == "train_challenger":
        return _of_challenger("challenger", signed)
    fresh = FreshAnchor.model_validate(now.artifact)
    return _of_anchor(fresh.model_copy(update={"trained": signed}))


def trained_by(stage: str, record: StageRecord) -> Challenger | None:
    """Return the model that a stage trained, if it trains and has trained one."""
    if stage == "train_challenger":
        return Challenger.model_validate(record.artifact)
    if stage == "train_anchor":
        return FreshAnchor.model_validate(record.artifact).trained
    return None


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
    why = {"why": fresh.why, "problem": fresh.problem}
    said = "trained" if fresh.trained else "not trained"
    found = {"fresh anchor": _fact(why, said)}
    return found | (_of_challenger("fresh anchor", fresh.trained) if fresh.trained else {})


def _of_judgement(judgement: Judgement) -> dict[str, Fact]:
    """Return the comparison in parts, and the verdict without what was measured anew."""
    said = _without_places(judgement.model_dump(mode="json"))
    anchor = said["anchor"] or {}
    checks = {"challenger": judgement.serving}
    if judgement.anchor is not None:
        checks["fresh anchor"] = judgement.anchor.serving
    verdict = said["verdict"]
    kept = judgement.verdict.repeatable
    verdict["grounds"] = _without_places([reason.model_dump(mode="json") for reason in kept])
    others = ("estimates", "operating_curve", "tries")
    repeating = {who: each.model_dump(include=_REPEATING) for who, each in checks.items()}
    return {
        "holdout rows": Fact(judgement.comparison.holdout_digest),
        "metrics and intervals": _fact(said["comparison"]),
        "self-test of the gate": _fact(said["self_test"]),
        "anchor": _fact(anchor and {**anchor, "serving": None}),
        "serving check": _fact(repeating),
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


def _names_in(former: Challenger) -> CodeNames | None:
    """Return which code the original bundle names, if the bundle is still there.

    Only names are taken from it; what the bundle was is said by the record's digests.
    """
    try:
        said = json.loads(storage.read_bytes(storage.join(former.bundle_uri, _DESCRIPTION)))
        return {name: str(said[name]) for name in ("code_version", "code_digest")}
    except (FileNotFoundError, HomefeedError, KeyError, TypeError, ValueError):
        return None  # What the manifest says of the code is nearly always the same.


def _names_by(run: ResolvedRun, then: StageRecord) -> CodeNames:
    """Return which code a stage's manifest names, or else its run.

    A bundle names the code at the start of its training. A retry after an outage may publish it by
    code of another version, which then stands in the manifest.
    """
    made = then.made_with or run
    return {"code_version": made.code_version, "code_digest": made.code_digest}


def _signed(challenger: Challenger, names: CodeNames) -> Challenger:
    """Return a rebuilt model with the digests that its bundle would have with other names of code.

    The file of example scores names the digest of the description, so it is another one as well.
    """
    from training.bundle.files import as_written_beside, read_config

    folder = storage.local_path(challenger.bundle_uri)
    text = read_config(folder).model_copy(update=names).to_record()
    contents = {_DESCRIPTION: text, _SCORES: as_written_beside(folder, text)}
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    files = tuple(
        file.model_copy(update={"sha256": digests.get(file.path, file.sha256)})
        for file in challenger.bundle_files
    )
    model = challenger.model.model_copy(update={"bundle_digest": digest_of_files(files)})
    return challenger.model_copy(update={"bundle_files": files, "model": model})
