"""What of a rebuilt cycle is equal to its record, and where what is not equal differs.

A stage's work is held against its record as named facts: digests of contents, never of places. Left
out are URIs, ids of MLflow runs, and what is measured anew at every run: latency and memory of the
serving check. A bundle's description names the code that wrote it; a rebuilt one is taken as the
record's code would have signed it, for code is compared on its own, in `causes`. Not for why
something differs: that is `pipelines.reproduction.causes`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, DataReport, FreshAnchor, Snapshot
from pipelines.contracts.base import Artifact, digest_of
from pipelines.contracts.code_identity import Environment
from pipelines.contracts.files import digest_of_files
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord
from pipelines.contracts.stage_table import TABLE

_MAX_SHOWN = 8
_ABSENT = "nothing"
_WEIGHTS, _DESCRIPTION, _SCORES = "weights.safetensors", "bundle.json", "golden.safetensors"
_NAMES = {_WEIGHTS: "weights", _DESCRIPTION: "description", _SCORES: "example scores"}
_STEPS = {"num_steps", "num_training_examples", "final_training_loss", "seed"}
_PLACES = {"mlflow_run_id", "bundle_digest", "model_digest"}
"""Fields of a `ModelRef` that are not compared: a bundle is compared by its files."""
_SIDES: dict[str, Any] = {"challenger_model": _PLACES, "baseline_model": _PLACES}
_REPEATING = {"golden_difference", "score_spread", "saturated_share"}
"""Fields of a `ServingCheck` that the bundle decides, and not the machine's other work."""


@dataclass(frozen=True)
class Finding:
    """One thing, then and now."""

    stage: str
    what: str
    state: Literal["equal", "differs", "not rebuilt", "not on record"]
    then: str = ""
    now: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """One thing that a stage made."""

    digest: str
    """Equal where the thing is equal. Words for people may stand before it: '320 steps 1a2b...'."""
    content: Any = None
    """The JSON value behind the digest, by which a difference can be placed; None: not kept."""

    @classmethod
    def of(cls, content: Any, said: str = "") -> "Fact":
        """Return the fact of a JSON value."""
        return cls(f"{said} {digest_of(content)}".strip(), content)


def compare_stage(
    stage: str, then: StageRecord | None, now: StageRecord | None, why_not: str
) -> list[Finding]:
    """Return what of a stage's work is equal.

    Args:
        stage: The stage.
        then: The original record; None: the stage never ended.
        now: The rebuilt one; None: it was not rebuilt.
        why_not: Why it was not rebuilt.
    """
    if then is None:
        return [Finding(stage, "all of it", "not on record")]
    kind = TABLE[stage].gives
    known = facts_of(kind.model_validate(then.artifact))
    if now is None:
        why = (why_not,) if why_not else ()
        return [
            Finding(stage, what, "not rebuilt", fact.digest, details=why)
            for what, fact in known.items()
        ]
    found = facts_of(_signed_by(then.made_with, kind.model_validate(now.artifact)))
    findings, nothing = [], Fact(_ABSENT, _ABSENT)
    for what in {**known, **found}:
        former, today = known.get(what, nothing), found.get(what, nothing)
        if former.digest == today.digest:
            findings.append(Finding(stage, what, "equal", former.digest, today.digest))
            continue
        contents = former.content, today.content
        details = () if None in contents else tuple(differences(*contents))
        if (more := len(details) - _MAX_SHOWN) > 0:
            details = (*details[:_MAX_SHOWN], f"and {more} more")
        findings.append(Finding(stage, what, "differs", former.digest, today.digest, details))
    return findings


def facts_of(made: Artifact, whose: str = "challenger") -> dict[str, Fact]:
    """Return what a stage made, by name."""
    match made:
        case Snapshot():
            counts = made.model_dump(mode="json", exclude={"uri", "digest", "files", "features"})
            counts["files"] = {file.path: file.sha256 for file in made.files}
            return {"snapshot": Fact(made.digest, counts)}
        case DataReport():
            content = made.model_dump(mode="json", include={"outcomes", "reference_digest"})
            said = "accepted" if made.is_accepted else "refused"
            return {"ruling of the data gate": Fact.of(content, said)}
        case Challenger():
            files = sorted(made.bundle_files, key=lambda file: file.path != _WEIGHTS)
            steps = made.model_dump(mode="json", include=_STEPS)
            return {
                **{f"{whose}: {_NAMES.get(f.path, f.path)}": Fact(f.sha256) for f in files},
                f"{whose}: steps and loss": Fact.of(steps, f"{made.num_steps} steps"),
                f"{whose}: trained on snapshot": Fact(made.model.snapshot_digest),
            }
        case FreshAnchor():
            why = made.model_dump(mode="json", include={"why", "problem"})
            found = {"fresh anchor": Fact.of(why, "trained" if made.trained else "not trained")}
            return found | (facts_of(made.trained, "fresh anchor") if made.trained else {})
        case Judgement():
            return _facts_of_judgement(made)
    raise TypeError(f"nothing is compared of a {type(made).__name__}")


def _facts_of_judgement(made: Judgement) -> dict[str, Fact]:
    """Return the comparison in parts, and the verdict without what was measured anew."""
    anchor, checks = None, {"challenger": made.serving}
    if made.anchor is not None:
        checks["fresh anchor"] = made.anchor.serving
        anchor = made.anchor.model_dump(
            mode="json",
            exclude={"serving": True, "model": _PLACES, "recipe": _SIDES, "freshness": _SIDES},
        )
    others = {"estimates", "operating_curve", "tries"}
    repeating = {who: each.model_dump(include=_REPEATING) for who, each in checks.items()}
    verdict = made.verdict.model_dump(mode="json", exclude={"grounds"})
    verdict["grounds"] = [each.model_dump(mode="json") for each in made.verdict.repeatable]
    verdict["problem"] = made.problem
    return {
        "holdout rows": Fact(made.comparison.holdout_digest),
        "metrics and intervals": Fact.of(made.comparison.model_dump(mode="json", exclude=_SIDES)),
        "self-test of the gate": Fact.of(made.self_test.model_dump(mode="json")),
        "anchor": Fact.of(anchor),
        "serving check": Fact.of(repeating),
        "estimates and operating curve": Fact.of(made.model_dump(mode="json", include=others)),
        "verdict": Fact.of(verdict, made.verdict.decision),
    }


def _signed_by(former: Environment | None, made: Artifact) -> Artifact:
    """Return a rebuilt model with the digests that its bundle would have, written by other code.

    The file of example scores names the digest of the description, so it is another one as well.
    """
    if isinstance(made, FreshAnchor) and made.trained is not None:
        return made.model_copy(update={"trained": _signed_by(former, made.trained)})
    if not isinstance(made, Challenger) or former is None:
        return made
    from training.bundle.files import as_written_beside, read_config

    folder = storage.local_path(made.bundle_uri)
    names = {"code_version": former.code_version, "code_digest": former.code_digest}
    text = read_config(folder).model_copy(update=names).to_record()
    contents = {_DESCRIPTION: text, _SCORES: as_written_beside(folder, text)}
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    files = tuple(
        file.model_copy(update={"sha256": digests.get(file.path, file.sha256)})
        for file in made.bundle_files
    )
    model = made.model.model_copy(update={"bundle_digest": digest_of_files(files)})
    return made.model_copy(update={"bundle_files": files, "model": model})


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
