"""What is not as it was when a cycle ran: its data, code, packages, processor and recipe.

What a serving check measured anew is told here too, where the verdict depends on it. Each is a
sentence. Whether it made a difference is for the findings to say: a partition that was written
again may hold the same rows, and a newer package may give the same bytes.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from pipelines.contracts.artifacts import FreshAnchor
from pipelines.contracts.code_identity import Environment, code_digest
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord
from pipelines.event_log.listing import ListedFile, Listing
from pipelines.recipes import RECIPES, make_recipe
from pipelines.reproduction.past_cycle import PastCycle

_MAX_FILES = 20
_MEASURED_ANEW = ("serving_latency", "serving_memory")
"""Problems of a serving check that depend on the machine's other work."""
Records = Mapping[str, StageRecord]


def changes_since(past: PastCycle, rebuilt: Records, now: Listing | None) -> list[str]:
    """Return all that is not as it was.

    Args:
        past: The cycle.
        rebuilt: Records of the stages that were rebuilt, by name.
        now: The event log's files as they were read for rebuilding; None where they were not.
    """
    return [
        *data_changes(past, now),
        *environment_changes(past, rebuilt),
        *recipe_changes(past),
        *anchor_changes(past, rebuilt),
        *measured_changes(past, rebuilt),
    ]


def data_changes(past: PastCycle, now: Listing | None) -> list[str]:
    """Return which files of the event log are not as they were, those that matter most first."""
    if now is None or "build_snapshot" not in past.records:
        return []
    if past.listing is None:
        return ["data: the list of the files that were read is gone, so they are not compared"]
    before = {file.path: file for file in past.listing.files}
    after = {file.path: file for file in now.files}
    found: list[tuple[int, str]] = []  # how little it matters, and the sentence
    touched = []
    for path in sorted(before.keys() | after.keys()):
        then, today = before.get(path), after.get(path)
        if then is None and today is not None:
            harmless = ", so none that the snapshot may hold" if today.num_known == 0 else ""
            said = f"was added, written {_written(today)}: {_rows(today)}{harmless}"
            found.append((0 if today.num_known else 2, f"data: {path} {said}"))
        elif today is None and then is not None:
            found.append((0, f"data: {path} is gone; it had {_rows(then)}"))
        elif then is not None and today is not None and then != today:
            if then.footer and (then.footer, then.num_bytes) == (today.footer, today.num_bytes):
                touched.append(today)
                continue
            said = f"was written again {_written(today)}: {_rows(then)} then, {_rows(today)} now"
            late = then.num_known == today.num_known and then.num_rows != today.num_rows
            found.append((1 if late else 0, f"data: {path} {said}"))
    if touched:  # A copy of the log, put back, has all files alike.
        others = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
        said = f"{touched[-1].path}{others}, written again {_written(touched[-1])}"
        found.append((3, f"data: the same footer and size, but another time of writing: {said}"))
    texts = [text for _, text in sorted(found)]
    more = [f"data: and {len(texts) - _MAX_FILES} more files"] if len(texts) > _MAX_FILES else []
    return [*texts[:_MAX_FILES], *more]


def _rows(file: ListedFile) -> str:
    known, rows = (
        "an unknown number of" if number is None else f"{number:,}"
        for number in (file.num_known, file.num_rows)
    )
    return f"{rows} rows, {known} known before as_of"


def _written(file: ListedFile) -> str:
    if file.modified_at is None:
        return "at a time that the storage does not tell"
    return f"{file.modified_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def environment_changes(past: PastCycle, rebuilt: Records) -> list[str]:
    """Return how code, packages and processor differ, each sentence once, with its stages."""
    stages: dict[str, list[str]] = {}
    for name, record in rebuilt.items():
        then = past.records.get(name)
        if then is None or then.made_with is None or record.made_with is None:
            continue
        for what, former, today in _differences(then.made_with, record.made_with):
            sentence = f"{what}: {former} on {then.finished_at:%Y-%m-%d}, {today} now"
            stages.setdefault(sentence, []).append(name)
    return [f"{sentence} ({', '.join(names)})" for sentence, names in stages.items()]


def _differences(then: Environment, now: Environment) -> Iterator[tuple[str, str, str]]:
    """Yield what differs, and what was and is there."""
    if then.project_digest != now.project_digest:
        other = " that trains and scores" if then.code_digest != now.code_digest else ""
        former, today = (f"{e.project_digest[:12]} ({e.code_version})" for e in (then, now))
        yield f"code{other}", former, today
    for name in sorted({*then.packages, *now.packages}):
        former, today = (each.packages.get(name, "not installed") for each in (then, now))
        if former != today:
            yield f"package {name}", former, today
    for name in ("python", "processor", "instructions", "num_cores", "gpus", "variables"):
        former, today = getattr(then, name), getattr(now, name)
        if former != today:
            yield name.replace("num_", ""), _text(former), _text(today)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name}={each}" for name, each in value.items()]
    return str(value) if isinstance(value, int | str) else ", ".join(value) or "none"


def recipe_changes(past: PastCycle) -> Iterator[str]:
    """Yield that the recipe is another one today, or that it cannot be read here any more."""
    config = past.run.config
    if config.reference == config.recipe and config.recipe not in RECIPES:
        return  # It was one of this project, which has none of that name today.
    try:
        todays = make_recipe(config.reference)
    except HomefeedError as error:
        yield f"recipe {config.reference!r} cannot be read today ({error}); the recorded was taken"
        return
    if todays != config:
        yield (
            f"recipe {config.reference!r}: {config.fingerprint()[:12]} then, "
            f"{todays.fingerprint()[:12]} now; the recorded one was taken"
        )


def anchor_changes(past: PastCycle, rebuilt: Records) -> Iterator[str]:
    """Yield that the fresh anchor was trained by other code than the rest of the cycle, if so.

    Such code is installed beside the cycle's (HOMEFEED_ANCHOR_CODE), and
    is not asked when a cycle is rebuilt.
    """
    record = past.records.get("train_anchor")
    if record is None or "train_anchor" not in rebuilt:
        return
    then, ours = FreshAnchor.model_validate(record.artifact).code_digest, code_digest()
    if then not in ("", ours, past.run.code_digest):
        yield (
            f"fresh anchor: it was trained by code {then[:12]}, and the cycle was begun by code "
            f"{past.run.code_digest[:12]}, as where HOMEFEED_ANCHOR_CODE or "
            f"HOMEFEED_ANCHOR_CODE name the accepted code; it was rebuilt by the code that is "
            f"installed, {ours[:12]}"
        )


def measured_changes(past: PastCycle, rebuilt: Records) -> Iterator[str]:
    """Yield where a serving check found latency or memory beyond a limit at one time only.

    These figures are measured anew and are compared with nothing, but the verdict is made of them.
    """
    for whose in ("challenger", "fresh anchor"):
        then, now = (
            _broken(each.get("compare_with_champion"), whose) for each in (past.records, rebuilt)
        )
        if then is not None and now is not None and then.keys() != now.keys():
            said, says = (" ".join(each.values()) or "within its limits." for each in (then, now))
            yield (
                f"serving check of the {whose}, then: {said} Now: {says} This is measured anew "
                f"each time, and the verdict depends on it"
            )


def _broken(record: StageRecord | None, whose: str) -> dict[str, str] | None:
    """Return which limits a model broke by what is measured anew; None where it was not checked."""
    judged = Judgement.model_validate(record.artifact) if record else None
    side = judged if whose == "challenger" or judged is None else judged.anchor
    if side is None:
        return None
    problems = side.serving.problems
    return {each.code: each.sentence for each in problems if each.code in _MEASURED_ANEW}
