"""What is not as it was when a cycle ran: its data, code, packages, processor and recipe.

What a serving check measured anew is told here too, where the verdict depends on it. Each is a
sentence that says since when, as far as that can be known. Whether it made a difference is for the
findings to say: a partition that was written again may hold the same rows, and a newer package may
give the same bytes.
"""

import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.contracts.artifacts import FreshAnchor
from pipelines.contracts.code_identity import (
    MODEL_CODE,
    PROJECT_CODE,
    ROOT,
    Environment,
    code_digest,
    code_version,
)
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Judgement, Reason, ServingCheck
from pipelines.contracts.run_layout import StageRecord
from pipelines.event_log.listing import ListedFile, Listing
from pipelines.recipes import RECIPES, make_recipe
from pipelines.reproduction.past_cycle import PastCycle

_MAX_FILES = 20
_VERSION = re.compile(r"[A-Za-z0-9][\w./-]*")
_MEASURED_ANEW = {
    "serving_latency": "latency p99 is {found:.3g} ms, beyond the {limit:.3g} ms allowed",
    "serving_memory": "peak memory is {found:.3g} MiB, beyond the {limit:.3g} MiB allowed",
}
"""Problems of a serving check that depend on the machine's other work, as they are told here."""


def data_changes(past: PastCycle, now: Listing | None) -> list[str]:
    """Return which files of the event log are not as they were, those that matter most first.

    Where the record does not list the files, those that were written after the snapshot was built
    are named.
    """
    built = past.records.get("build_snapshot")
    if now is None or built is None:
        return []
    if past.listing is None:
        found = [_written_after(file, built.finished_at) for file in now.files]
        changes = [(1, text) for text in found if text]
    else:
        changes = list(_changes(past.listing, now, built.finished_at))
    texts = [text for _, text in sorted(changes)]
    more = [f"data: and {len(texts) - _MAX_FILES} more files"] if len(texts) > _MAX_FILES else []
    return [*texts[:_MAX_FILES], *more]


def _changes(then: Listing, now: Listing, built_at: datetime) -> Iterator[tuple[int, str]]:
    """Yield (how little it matters, sentence) of what is not as it was."""
    before = {file.path: file for file in then.files}
    after = {file.path: file for file in now.files}
    for path in sorted(before.keys() - after.keys()):
        gone = f"data: {path} is gone, with {_rows(before[path].num_known)} known before as_of"
        yield 0, f"{gone}; it was there when the snapshot was built ({_time(built_at)})"
    touched = []
    for path, file in sorted(after.items()):
        former = before.get(path)
        if former is None:
            added = f"data: {path} was added, written {_time(file.modified_at)}"
            known = f"{_rows(file.num_rows)}, {_rows(file.num_known)} known before as_of"
            yield (0 if file.num_known else 2), f"{added}: {known}{_harmless(file.num_known == 0)}"
        elif former.footer and (former.footer, former.num_bytes) == (file.footer, file.num_bytes):
            touched += [file] if former != file else []
        elif former != file:
            yield _rewritten(former, file)
    if touched:
        yield 3, _touched(touched)


def _touched(files: list[ListedFile]) -> str:
    """Return one sentence on files that a copy of the log, put back, has all alike."""
    last = max(files, key=lambda file: file.modified_at or datetime.min.replace(tzinfo=UTC))
    which = last.path if len(files) == 1 else f"{len(files)} files, the last of them {last.path},"
    were = "was" if len(files) == 1 else "were"
    return (
        f"data: {which} {were} written again {_time(last.modified_at)}, with the same row counts "
        f"and the same bounds of every column"
    )


def _rewritten(then: ListedFile, now: ListedFile) -> tuple[int, str]:
    said = f"data: {now.path} was written again {_time(now.modified_at)}"
    if then.num_known != now.num_known:
        former, today = _rows(then.num_known), _rows(now.num_known)
        return 0, f"{said}: {former} known before as_of then, {today} now"
    if then.num_rows != now.num_rows:
        rows = f"{_rows(then.num_rows)} then, {_rows(now.num_rows)} now"
        return 1, f"{said}: {rows}, as many as before known before as_of"
    return 0, (
        f"{said}, with as many rows as before and another footer: values, their order, or only "
        f"how they are stored were changed"
    )


def _written_after(file: ListedFile, built_at: datetime) -> str:
    if file.modified_at is None or file.modified_at <= built_at:
        return ""
    return (
        f"data: {file.path} was written {_time(file.modified_at)}, after the snapshot was built "
        f"({_time(built_at)})"
    )


def _harmless(is_late: bool) -> str:
    return ", so none that the snapshot may hold" if is_late else ""


def _rows(number: int | None) -> str:
    return "an unknown number of rows" if number is None else f"{number:,} rows"


def _time(instant: datetime | None) -> str:
    if instant is None:
        return "at a time that the storage does not tell"
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def environment_changes(past: PastCycle, rebuilt: dict[str, StageRecord]) -> list[str]:
    """Return how code, packages and processor differ, each sentence once, with its stages.

    Args:
        past: The cycle.
        rebuilt: Records of the stages that were rebuilt, by name.
    """
    stages: dict[str, list[str]] = {}
    for name, record in rebuilt.items():
        then = past.records.get(name)
        if then is None or record.made_with is None:
            continue
        if then.made_with is None:
            for sentence in _code_by_run(past):
                stages.setdefault(sentence, []).append(name)
            continue
        for sentence in _differences(then.made_with, record.made_with, then.finished_at):
            stages.setdefault(sentence, []).append(name)
    return [f"{sentence} ({', '.join(names)})" for sentence, names in stages.items()]


def not_recorded(past: PastCycle) -> list[str]:
    """Return what the record does not say, so that it cannot be held against today's."""
    silent = [name for name, record in past.records.items() if record.made_with is None]
    found = []
    if silent:
        found.append(f"packages and processor: not recorded for {', '.join(silent)}")
    if past.listing is None:
        found.append("files of the event log: not recorded; their times of writing were looked at")
    return found


def _code_by_run(past: PastCycle) -> list[str]:
    """Compare the code by what `resolve_run` fixed, where a stage does not say what ran it."""
    run = past.run
    if run.code_digest in ("", code_digest()):
        return []
    return [
        f"code that trains: {run.code_digest[:12]} ({run.code_version}) then, "
        f"{code_digest()[:12]} ({code_version()}) now"
        f"{_first_commit_since(run.code_version, MODEL_CODE)}"
    ]


def _differences(then: Environment, now: Environment, since: datetime) -> Iterator[str]:
    if then.project_digest != now.project_digest:
        other = "" if then.code_digest != now.code_digest else "; what trains and scores is equal"
        yield (
            f"code: {then.project_digest[:12]} ({then.code_version}) on {since:%Y-%m-%d}, "
            f"{now.project_digest[:12]} ({now.code_version}) now"
            f"{_first_commit_since(then.code_version, PROJECT_CODE)}{other}"
        )
    if then.python != now.python:
        yield f"Python: {then.python} on {since:%Y-%m-%d}, {now.python} now"
    for name in sorted({*then.packages, *now.packages}):
        former, today = (each.packages.get(name, "not installed") for each in (then, now))
        if former != today:
            installed = _installed_on(name)
            yield f"package {name}: {former} on {since:%Y-%m-%d}, {today} now{installed}"
    for name in ("processor", "instructions", "num_cores", "gpus", "variables"):
        former, today = (_text(getattr(each, name)) for each in (then, now))
        if former != today:
            yield f"{name.replace('num_', '')}: {former} on {since:%Y-%m-%d}, {today} now"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name}={each}" for name, each in value.items()]
    return str(value) if isinstance(value, int | str) else ", ".join(value) or "none"


def _installed_on(package: str) -> str:
    """Return since when the version of a package is there, by its files, or ''."""
    try:
        files = metadata.files(package) or []
        [path] = [file.locate() for file in files if file.name == "METADATA"]
        written = datetime.fromtimestamp(Path(str(path)).stat().st_mtime, UTC)
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return ""
    return f", installed {written:%Y-%m-%d}"


def _first_commit_since(version: str, folders: tuple[str, ...]) -> str:
    """Return the first commit to some code after a version, where git knows the version, or ''."""
    known = version.removesuffix("-dirty")
    if not (ROOT / ".git").exists() or not _VERSION.fullmatch(known):
        return ""
    command = ["git", "-C", str(ROOT), "log", "--reverse", "--format=%cs %h %s", f"{known}..HEAD"]
    try:
        found = subprocess.run(
            [*command, "--", *folders], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    first = next(iter(found.stdout.splitlines()), "")
    return f", the first commit to it since is {first}" if first else ""


def anchor_changes(past: PastCycle, rebuilt: dict[str, StageRecord]) -> list[str]:
    """Return that the fresh anchor was trained by other code than the rest of the cycle, if so.

    Such code is installed beside the cycle's (HOMEFEED_ANCHOR_IMAGE, HOMEFEED_ANCHOR_COMMAND), and
    is not asked when a cycle is rebuilt.
    """
    record = past.records.get("train_anchor")
    if record is None or "train_anchor" not in rebuilt:
        return []
    then, ours = FreshAnchor.model_validate(record.artifact).code_digest, code_digest()
    if then in ("", ours, past.run.code_digest):
        return []
    return [
        f"fresh anchor: it was trained by code {then[:12]}, and the cycle was begun by code "
        f"{past.run.code_digest[:12]}, as where HOMEFEED_ANCHOR_IMAGE or HOMEFEED_ANCHOR_COMMAND "
        f"name the accepted code; it was rebuilt by the code that is installed, {ours[:12]}"
    ]


def measured_changes(past: PastCycle, rebuilt: dict[str, StageRecord]) -> list[str]:
    """Return where a serving check found latency or memory beyond a limit at one time only.

    These figures are measured anew and are compared with nothing, but the verdict is made of them.
    """
    records = (past.records.get("compare_with_champion"), rebuilt.get("compare_with_champion"))
    then, now = (_checks_of(record) for record in records)
    return [
        f"serving check of the {whose}: {_said(then[whose])} then, {_said(now[whose])} now; this "
        f"is measured anew each time, and the verdict depends on it"
        for whose in then
        if whose in now and _broken(then[whose]).keys() != _broken(now[whose]).keys()
    ]


def _checks_of(record: StageRecord | None) -> dict[str, ServingCheck]:
    if record is None:
        return {}
    judgement = Judgement.model_validate(record.artifact)
    found = {"challenger": judgement.serving}
    return found | ({"fresh anchor": judgement.anchor.serving} if judgement.anchor else {})


def _broken(check: ServingCheck) -> dict[str, Reason]:
    """Return which limits of what is measured anew are broken, by their codes."""
    return {reason.code: reason for reason in check.problems if reason.code in _MEASURED_ANEW}


def _said(check: ServingCheck) -> str:
    broken = _broken(check).values()
    if not broken:
        p99, peak = check.latency_p99_ms, check.peak_memory_mib
        return f"nothing beyond its limit (p99 {p99:.0f} ms and {peak:.0f} MiB)"
    return "; ".join(_MEASURED_ANEW[reason.code].format(**reason.facts) for reason in broken)


def recipe_changes(past: PastCycle) -> list[str]:
    """Return where today's recipe is another one, and which options the record does not have.

    What is rebuilt has the recorded options. An option that is younger than the record has its
    default, which should be what was done before there was the option.
    """
    recorded = past.records["resolve_run"].artifact["config"]
    config = past.run.config
    younger = sorted(_places(config.model_dump(mode="json")) - _places(recorded))
    found = [f"option {name}: younger than the record; its default was taken" for name in younger]
    found += _changed_since(config)
    return found


def _changed_since(config: RunConfig) -> Iterator[str]:
    """Yield that the recipe is another one today, or that it cannot be read here any more."""
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


def _places(value: Any, place: str = "") -> set[str]:
    """Return the names of all options in a configuration, dotted; lists stay whole."""
    if not isinstance(value, dict):
        return {place}
    inner = (_places(each, f"{place}.{name}".lstrip(".")) for name, each in value.items())
    return set().union(*inner)
