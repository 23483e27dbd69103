"""A workspace with cycles of several ages and a registry in a file: for tests of deletions.

cycle 1..7, a hundred days apart, the newest five days old, each with a snapshot, a training's
work folder and an alert; v1, v3, v4, v5 and v6 were promoted, v2 and v7 were not
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.registry import moves
from pipelines.registry.registry import KEEPER
from pipelines.retention.collect import delete, plan_deletion
from pipelines.retention.plan import Plan, Record
from support.fake_registry import FakeRegistry, asked_by_all
from support.judgements import make_model
from support.record_world import FIRST, NAME, Acting
from support.registered import NO_ANCHOR, challenger_of, judgement_of
from support.runs import save_json

NUM_CYCLES = 7
PROMOTED = ("1", "3", "4", "5", "6")


def name_of(number: str) -> str:
    return f"2017-03-0{number}--0000000{number}"


def snapshot_of(number: str) -> str:
    return number * 16


class OldWorld(Acting):
    """The cycles, and what a deletion makes of them."""

    def __init__(self, folder: Path, client: FakeRegistry) -> None:
        super().__init__(folder, client)
        self.now, self.workspace = datetime.now(UTC), folder / "workspace"

    def tick(self) -> datetime:
        return self.now

    def fill(self) -> None:
        self.registry.set_registered_model_tag(NAME, KEEPER, self.workspace_uri)
        champion: ModelRef | None = None
        for number in map(str, range(1, NUM_CYCLES + 1)):
            model = make_model(number, FIRST + timedelta(days=14 * int(number)))
            digests = {"model_digest": "d" * 64, "snapshot_digest": snapshot_of(number) * 4}
            model = model.model_copy(update=digests)
            self.registry.add(model, name_of(number), self.made_at(number))
            run = self._fill_cycle(number, model, champion)
            if number in PROMOTED:
                judgement, challenger = judgement_of(run, model), challenger_of(model)
                made = challenger, NO_ANCHOR, judgement
                moves.promote_challenger(run, *made, self.made_at(number))
                champion = model
            self.age(self.workspace / "runs" / name_of(number), number)

    def made_at(self, number: str) -> datetime:
        return self.now - timedelta(days=5 + 100 * (NUM_CYCLES - int(number)))

    def age(self, path: Path, number: str) -> None:
        """Let everything at a path be as old as a cycle."""
        at = self.made_at(number).timestamp()
        for each in [path, *path.rglob("*")]:
            os.utime(each, (at, at))

    def _fill_cycle(self, number: str, model: ModelRef, champion: ModelRef | None) -> ResolvedRun:
        name = name_of(number)
        reference = f"{self.workspace_uri}/snapshots/{snapshot_of(str(int(number) - 1))}"
        last = {"last_accepted_snapshot_uri": reference if number > "1" else None}
        run = self.save_cycle(model, champion, run_id=name, **last)
        save_snapshot(run, snapshot_of(number))
        folder = self.workspace / "runs" / name
        write(folder / "train_challenger" / "training" / "checkpoints" / "1.ckpt", 3000)
        write(folder / "train_challenger" / "training" / "result.json", 10)
        for ending in ("json", "txt"):
            alert = self.workspace / "outbox" / f"{name}.regression.0000000{number}.{ending}"
            write(alert, 50)
            self.age(alert, number)
        self.age(self.workspace / "snapshots" / snapshot_of(number), number)
        return run

    def plan(self, **settings: Any) -> tuple[Record, Plan]:
        return plan_deletion(self.registry, self.settings.model_copy(update=settings), self.now)

    def delete(self, **settings: Any) -> dict[str, str]:
        """Delete, and return what was said of each thing."""
        return self.carry_out(*self.plan(**settings))

    def carry_out(self, record: Record, plan: Plan) -> dict[str, str]:
        """Carry out a plan, and return what was said of each thing."""
        done = delete(self.registry, record, plan)
        return {f"{held.kind} {held.name}": kept for held, kept in done}

    def names(self, folder: str) -> list[str]:
        """Numbers of the cycles whose runs, snapshots or alerts are there."""
        found = sorted(path.name for path in (self.workspace / folder).iterdir())
        return [name for name in found if not name.endswith(".lock")]


def save_snapshot(run: ResolvedRun, name: str) -> None:
    """Write a snapshot, and the manifest that names it, as `build_snapshot` would have."""
    uri = f"{run.workspace_uri}/snapshots/{name}"
    storage.write_bytes(f"{uri}/shard-00000/timeline.arrow", b"x" * 2000)
    storage.write_bytes(f"{uri}/manifest.json", b"{}")
    save_json(run, "build_snapshot", {"uri": uri})


def write(path: Path, num_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * num_bytes)


@contextmanager
def old_world(folder: Path, like: OldWorld | None = None) -> Iterator[OldWorld]:
    """Give a world whose registry is asked by everything that asks MLflow.

    Args:
        folder: Where it lies.
        like: A world that was made there before, and a copy of which lies beside it.
    """
    kept = folder.with_name(f"{folder.name}-as-made")
    if like is not None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)
    folder.mkdir(exist_ok=True)
    with asked_by_all(FakeRegistry(folder / "registry.json")) as client:
        world = OldWorld(folder, client)
        if like is None:
            world.fill()
            shutil.copytree(folder, kept)
        else:
            world.now, world.runs, world.models = like.now, like.runs, like.models
        yield world
