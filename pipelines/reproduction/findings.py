"""What of a rebuilt cycle is equal to its record, and where what is not equal differs.

What is held against each other are the facts of `pipelines.reproduction.facts`. Not for why
something differs: that is `pipelines.reproduction.causes`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.run_layout import StageRecord
from pipelines.reproduction.facts import Fact, facts_like, facts_of

_MAX_SHOWN = 8
_ABSENT = "nothing"
_DIGEST = re.compile("[0-9a-f]{64}")


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
    found = facts_like(stage, run, then, now)
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
