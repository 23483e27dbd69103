"""`homefeed gc`: what is old and needed by nobody is deleted.

Tested in tests/pipelines/cli/test_gc.py.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines.cli.printing import say
from pipelines.registry import tracking
from pipelines.retention.collect import delete, plan_deletion
from pipelines.retention.plan import Item
from pipelines.settings import Settings

_UNITS = ("B", "kB", "MB", "GB", "TB")


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")
    ] = False,
) -> dict[str, Any]:
    """Delete old runs, snapshots, checkpoints, alerts and models that nothing needs any more.

    The record itself stays: history, accepted recipes and snapshots, evidence, versions.
    """
    settings, now = Settings(), datetime.now(UTC)
    place, plan = plan_deletion(tracking.connect(settings.tracking_uri), settings, now)
    say(f"workspace: {place.workspace_uri}")
    rows = [_said("kept", item, now, item.kept) for item in plan if item.kept]
    gone: list[Item] = []
    if dry_run:
        gone = [item for item in plan if not item.kept]
        rows += [_said("would go", item, now) for item in gone]
    else:
        for item, kept in delete(place, plan):
            rows.append(_said("kept" if kept else "gone", item, now, kept))
            gone += [] if kept else [item]
    _say_total(gone, "would free" if dry_run else "freed")
    return {
        "workspace_uri": place.workspace_uri,
        "is_dry_run": dry_run,
        "items": rows,
        "num_bytes": sum(item.held.num_bytes for item in gone),
    }


def _said(what: str, item: Item, now: datetime, why: str = "") -> dict[str, Any]:
    """Print what becomes of something, and return it for programs."""
    say(_line(what, item, now, why))
    return {
        "becomes": what,
        "kind": item.kind,
        "name": item.label,
        "num_bytes": item.held.num_bytes,
        "age_days": item.age_days(now),
        "because": why,
    }


def _line(what: str, item: Item, now: datetime, why: str = "") -> str:
    size, age = _size(item.held.num_bytes), f"{item.age_days(now)} days old"
    tail = f"  because {why}" if why else ""
    return f"{what:8}  {item.kind:11}  {item.label}  {size}, {age}{tail}"


def _say_total(gone: list[Item], verb: str) -> None:
    models = [item for item in gone if item.kind == "model"]
    others = [item for item in gone if item.kind != "model"]
    say(f"{verb} {_size(sum(item.held.num_bytes for item in others))} ({_count(others, 'thing')})")
    if models:
        size = _size(sum(item.held.num_bytes for item in models))
        marks = "would mark" if verb == "would free" else "has marked"
        say(
            f"MLflow {marks} {_count(models, 'model')} as deleted; `mlflow gc`, run on its server, "
            f"frees {size}"
        )


def _count(items: list[Item], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _size(num_bytes: float) -> str:
    for unit in _UNITS[:-1]:
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} {_UNITS[-1]}"
