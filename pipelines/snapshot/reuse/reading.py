"""The first pass over an event log of which an earlier snapshot has read most files.

What lies in packs is taken from there; what does not is read, and kept in packs where the next
snapshot would read the same. Tested in tests/pipelines/snapshot/reuse/test_reuse.py.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.contracts.errors import DataContractError
from pipelines.event_log.log_files import LogFile
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.pool import run_in_threads
from pipelines.snapshot.reuse.dealing import deal_pack, is_whole
from pipelines.snapshot.reuse.packs import DamagedPackError, open_pack, pack_of, where
from pipelines.snapshot.reuse.shelf import PackUse, Shelf, day_number, touch
from pipelines.snapshot.rows import HeldRows
from pipelines.snapshot.spill import (
    SpillSummary,
    SpillTask,
    WholeFiles,
    is_early,
    merge_summaries,
    read_whole,
    run_task,
)


@dataclass(frozen=True)
class KeptReading:
    """Deals out the files of an event log, from packs as far as they are there."""

    shelf: Shelf
    held: HeldRows
    plan: SnapshotPlan

    def split(self, tasks: Sequence[SpillTask]) -> tuple[list[PackUse], list[SpillTask]]:
        """Return what packs hold of the tasks' files, and the tasks with the other files."""
        plan = self.plan
        uses = self.shelf.find(f for task in tasks for f in task.files if _is_whole(f, plan))
        known = {file for use in uses for file in use.files}
        left = [
            replace(task, files=files)
            for task in tasks
            if (files := tuple(file for file in task.files if file not in known))
        ]
        return uses, left

    def take(self, use: PackUse, task: SpillTask) -> SpillSummary:
        """Deal out what a pack holds; a damaged one is removed, and its files are read."""
        try:
            pack = open_pack(use.path)
        except DamagedPackError as error:
            self.shelf.drop(use.path, error)
            return self.read(replace(task, files=use.files))
        touch(use.path)
        return deal_pack(pack, use.is_used, self.plan, self.held)

    def read(self, task: SpillTask) -> SpillSummary:
        """Read one task's files, and keep what can be used again.

        Raises:
            DataContractError: a file breaks the contract; the message names it.
            TransientStorageError: the storage failed.
        """
        wanted = tuple(file for file in task.files if self._can_keep(file))
        rest = [file for file in task.files if file not in wanted]
        parts = []
        if wanted:
            try:
                whole = read_whole(task, wanted)
            except DataContractError:
                if len(task.files) == 1:
                    raise
                # One by one, files of other types are read, and the message names the one at fault.
                return merge_summaries([self.read(replace(task, files=(f,))) for f in task.files])
            if (found := self._keep(whole, wanted)) is None:
                rest = list(task.files)
            else:
                parts.append(found)
                rest += [f for f, known in zip(wanted, whole.is_complete, strict=True) if not known]
        if rest:
            parts.append(run_task(replace(task, files=tuple(rest)), self.held))
        return merge_summaries(parts)

    def _keep(self, whole: WholeFiles, files: tuple[LogFile, ...]) -> SpillSummary | None:
        """Keep the files of which all rows are known, and deal them out; None where none can be."""
        if not self.shelf.is_as_listed(files):
            return None  # Their rows are others than the list says; whoever reads on tells of it.
        is_complete = np.array(whole.is_complete, dtype=bool)
        if not is_complete.any():
            return SpillSummary()
        kept = tuple(f for f, known in zip(files, whole.is_complete, strict=True) if known)
        whole = where(whole, is_complete)
        latest = np.zeros(len(kept), dtype=np.int64)
        np.maximum.at(latest, whole.file, np.asarray(whole.rows["known_at"]))
        header = self.shelf.header_of(kept, latest.tolist())
        try:
            path = self.shelf.keep(pack_of(header, whole, self.plan))
            # What was just written is mapped: it takes no memory until its shard is built.
            pack = open_pack(path, is_checked=False)
        except (OSError, DamagedPackError) as error:
            self.shelf.give_up(error)
            return None
        return deal_pack(pack, np.ones(len(kept), dtype=bool), self.plan, self.held)

    def _can_keep(self, file: LogFile) -> bool:
        if not _is_whole(file, self.plan) or is_early(file, self.plan):
            return False
        return self.shelf.may_keep(file)


def _is_whole(file: LogFile, plan: SnapshotPlan) -> bool:
    return file.day is not None and is_whole(file.table, day_number(file.day), plan)


def deal_out_kept(
    reading: KeptReading,
    tasks: Sequence[SpillTask],
    num_workers: int,
    num_readers: Callable[[Sequence[SpillTask]], int],
) -> Iterator[SpillSummary]:
    """Yield what was found in all files, from packs first.

    Args:
        reading: Where to look and what to do.
        tasks: Files in groups.
        num_workers: Threads that take from packs.
        num_readers: Says how many threads may read some tasks.
    """
    if not tasks:
        return
    uses, left = reading.split(tasks)
    take = functools.partial(reading.take, task=tasks[0])
    yield from run_in_threads(take, uses, num_workers, "packs of known days")
    yield from run_in_threads(reading.read, left, num_readers(left), "event log parts")
