"""What is not as it was when a cycle ran: its data, code, packages, processor and recipe.

What a serving check measured anew is told here too, where the verdict depends on it. Each is a
sentence. Whether it made a difference is for the findings to say: a partition that was written
again may hold the same rows, and a newer package may give the same bytes.
"""

from collections.abc import Iterator, Mapping

from pipelines.contracts.artifacts import FreshAnchor
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord
from pipelines.event_log.listing import Listing
from pipelines.recipes import RECIPES, make_recipe
from pipelines.reproduction.findings import differences
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
    for path in sorted(before.keys() | after.keys()):
        sides = [each.get(path, dict[str, object]()) for each in (before, after)]
        said = "; ".join(differences(sides[0], sides[1]))
        if said:
            known, footers = ([each.get(n) for each in sides] for n in ("num_known", "footer"))
            what = "" if all(sides) else " was added" if sides[1] else " is gone"
            little = 0 if (known[0] or 0) != (known[1] or 0) else 1 if len(set(footers)) > 1 else 2
            found.append((little, f"data: {path}{what}: {said}"))
    texts = [text for _, text in sorted(found)]
    more = [f"data: and {len(texts) - _MAX_FILES} more files"] if len(texts) > _MAX_FILES else []
    return [*texts[:_MAX_FILES], *more]


def environment_changes(past: PastCycle, rebuilt: Records) -> list[str]:
    """Return how code, packages and processor differ, each sentence once, with its stages."""
    stages: dict[str, list[str]] = {}
    for name, record in rebuilt.items():
        then = past.records.get(name)
        if then is None or then.made_with is None or record.made_with is None:
            continue
        # A commit to the documentation changes the version alone.
        is_same = then.made_with.project_digest == record.made_with.project_digest
        left_out = {"code_version"} if is_same else set()
        former, today = (
            each.model_dump(exclude=left_out) for each in (then.made_with, record.made_with)
        )
        for sentence in differences(former, today):
            since = f"{sentence} (on {then.finished_at:%Y-%m-%d}"
            stages.setdefault(since, []).append(name)
    return [f"{sentence}: {', '.join(names)})" for sentence, names in stages.items()]


def recipe_changes(past: PastCycle) -> Iterator[str]:
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
            f"{past.run.code_digest[:12]}, as where HOMEFEED_ANCHOR_CODE "
            f"names the accepted code; it was rebuilt by the code that is installed, {ours[:12]}"
        )


def measured_changes(past: PastCycle, rebuilt: Records) -> Iterator[str]:
    """Yield where a serving check found latency or memory beyond a limit at one time only.

    These figures are measured anew and are compared with nothing, but the verdict is made of them.
    """

    def broken(records: Records, whose: str) -> dict[str, str] | None:
        """Return which limits a model broke; None where it was not checked."""
        record = records.get("compare_with_champion")
        judged = Judgement.model_validate(record.artifact) if record else None
        side = judged if whose == "challenger" or judged is None else judged.anchor
        problems = side.serving.problems if side else ()
        found = {each.code: each.sentence for each in problems if each.code in _MEASURED_ANEW}
        return found if side else None

    for whose in ("challenger", "fresh anchor"):
        then, now = broken(past.records, whose), broken(rebuilt, whose)
        if then is not None and now is not None and then.keys() != now.keys():
            said, says = (" ".join(each.values()) or "within its limits." for each in (then, now))
            yield (
                f"serving check of the {whose}, then: {said} Now: {says} This is measured anew "
                f"each time, and the verdict depends on it"
            )
