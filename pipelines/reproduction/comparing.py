"""What of a rebuilt cycle is equal to its record, where it differs, and what is not as it was then.

A stage's work is held against its record as named facts: digests of contents, never of places. Left
out are URIs, ids of MLflow runs, numbers of versions, and what is measured anew at every run:
latency and memory of the serving check. Of a bundle the weights are compared: its description names
the code that wrote it, which is compared on its own, and its example scores name the description.

What has changed since is told beside it: data, code, packages, processor, recipe. Whether it made a
difference is for the findings to say: a partition that was written again may hold the same rows,
and a newer package may give the same bytes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.contracts.artifacts import Challenger, DataReport, FreshAnchor, Snapshot
from pipelines.contracts.base import Artifact, digest_of
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord
from pipelines.contracts.stage_table import TABLE
from pipelines.event_log.listing import Listing
from pipelines.recipes import RECIPES, make_recipe
from pipelines.reproduction.past_cycle import PastCycle

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

    Args:
        stage: The stage.
        then: The original record; None: the stage never ended.
        now: The rebuilt one; None: it was not rebuilt.
        why_not: Why it was not rebuilt; '' unknown.
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
            anchor, checks = None, {"challenger": made.serving}
            if made.anchor is not None:
                checks["fresh anchor"] = made.anchor.serving
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

    Args:
        past: The cycle.
        rebuilt: Records of the stages that were rebuilt, by name.
        now: The event log's files as they were read for rebuilding; None where they were not.
    """
    return [
        *_data_changes(past, now),
        *_environment_changes(past, rebuilt),
        *_recipe_changes(past),
        *_model_changes(past, rebuilt),
    ]


def _data_changes(past: PastCycle, now: Listing | None) -> list[str]:
    """Return which files of the event log are not as they were, those that matter most first.

    A file whose rows known before as_of are others may have changed the snapshot. One of which only
    the time of writing is another was copied, or put back.
    """
    if now is None or "build_snapshot" not in past.records:
        return []
    if past.listing is None:
        return ["data: the list of the files that were read is gone, so they are not compared"]
    before, after = (
        {file.path: file.model_dump(mode="json", exclude={"path"}) for file in each.files}
        for each in (past.listing, now)
    )
    found: list[tuple[int, str]] = []  # how little it matters, and the sentence
    for path in before.keys() | after.keys():
        sides = [each.get(path, dict[str, object]()) for each in (before, after)]
        if said := "; ".join(differences(sides[0], sides[1])):
            known, footers = ([each.get(n) for each in sides] for n in ("num_known", "footer"))
            what = "" if all(sides) else " was added" if sides[1] else " is gone"
            little = 0 if (known[0] or 0) != (known[1] or 0) else 1 if len(set(footers)) > 1 else 2
            found.append((little, f"data: {path}{what}: {said}"))
    texts = [text for _, text in sorted(found)]
    more = [f"data: and {len(texts) - _MAX_FILES} more files"] if len(texts) > _MAX_FILES else []
    return [*texts[:_MAX_FILES], *more]


def _environment_changes(past: PastCycle, rebuilt: Records) -> list[str]:
    """Return how code, packages and processor differ, each sentence once, with its stages."""
    stages: dict[str, list[str]] = {}
    for name, record in rebuilt.items():
        then, now = past.records.get(name), record.made_with
        if then is None or then.made_with is None or now is None:
            continue
        # A commit to the documentation changes the version alone.
        is_same = then.made_with.project_digest == now.project_digest
        left_out = {"code_version"} if is_same else set()
        former, today = (each.model_dump(exclude=left_out) for each in (then.made_with, now))
        for sentence in differences(former, today):
            since = f"{sentence} (on {then.finished_at:%Y-%m-%d}"
            stages.setdefault(since, []).append(name)
    return [f"{sentence}: {', '.join(names)})" for sentence, names in stages.items()]


def _recipe_changes(past: PastCycle) -> Iterator[str]:
    """Yield where the recipe is another one today, or that it cannot be read here any more."""
    config = past.run.config
    if config.reference == config.recipe and config.recipe not in RECIPES:
        return  # It was one of this project, which has none of that name today.
    start = f"recipe {config.reference!r}, of which the recorded one was taken"
    try:
        todays = make_recipe(config.reference)
    except HomefeedError as error:
        yield f"{start}: it cannot be read today ({error})"
        return
    former, now = (each.model_dump(mode="json") for each in (config, todays))
    yield from (f"{start}: {found}" for found in differences(former, now))


def _model_changes(past: PastCycle, rebuilt: Records) -> Iterator[str]:
    """Yield what of the models could not be made or measured as it was, if so.

    The fresh anchor may have been trained by the accepted code, installed beside the cycle's
    (HOMEFEED_ANCHOR_CODE), which is not asked when a cycle is rebuilt. Latency and memory of a
    serving check are compared with nothing, but the verdict is made of them.
    """
    if "train_anchor" in past.records and "train_anchor" in rebuilt:
        made = FreshAnchor.model_validate(past.records["train_anchor"].artifact)
        then, ours = made.code_digest, code_digest()
        if then not in ("", ours, past.run.code_digest):
            yield (
                f"fresh anchor: it was trained by code {then[:12]}, and the cycle was begun by "
                f"code {past.run.code_digest[:12]}, as where HOMEFEED_ANCHOR_CODE names the "
                f"accepted code; it was rebuilt by the code that is installed, {ours[:12]}"
            )
    stage = "compare_with_champion"
    if stage not in past.records or stage not in rebuilt:
        return
    judged = [Judgement.model_validate(each[stage].artifact) for each in (past.records, rebuilt)]
    for whose in ("challenger", "fresh anchor"):
        sides = [each if whose == "challenger" else each.anchor for each in judged]
        broken = [
            {p.code: p.sentence for p in side.serving.problems if p.code in _MEASURED_ANEW}
            for side in sides
            if side is not None
        ]
        if len(broken) == len(sides) and broken[0].keys() != broken[1].keys():
            said, says = (" ".join(each.values()) or "within its limits." for each in broken)
            yield (
                f"serving check of the {whose}, then: {said} Now: {says} This is measured anew "
                f"each time, and the verdict depends on it"
            )
