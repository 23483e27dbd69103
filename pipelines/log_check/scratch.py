"""Columns of numbers on the disk, so that no day of a large log needs to be in memory as a whole.

They lie in a folder that the next check or look removes where this process is killed:

    <scratch>/<kind>-<day>/<column>.bin           plain numbers, appended batch by batch
    <scratch>/<kind>-<day>/<part>/<column>.bin    where several processes read parts of one day

A folder has one writer. Rows that two processes append to the same columns stand in a different
order in each of them.

Not for what the columns hold (`events`, `exposures`). Tested with `pipelines.log_check.run`.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines import storage
from pipelines.contracts.files import own_temporary_folder

Column = npt.NDArray[np.generic]


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Give an empty folder in this user's part of the machine's temporary folder."""
    with storage.scratch_folder(own_temporary_folder("scratch").as_uri()) as folder:
        yield folder


def append(folder: Path, columns: dict[str, Column]) -> None:
    """Append rows to the columns of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in columns.items():
        with (folder / f"{name}.bin").open("ab") as stream:
            stream.write(np.ascontiguousarray(values).data)


def load(folder: Path, name: str, kind: type[np.generic]) -> Column:
    """Return a column, mapped into memory; empty where nothing was appended."""
    path = folder / f"{name}.bin"
    if not path.exists() or path.stat().st_size == 0:
        return np.zeros(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r")


def load_parts(folder: Path, name: str, kind: type[np.generic]) -> Column:
    """Return a column of all parts in a folder, one after another; empty where there is none."""
    parts = [load(each, name, kind) for each in sorted(folder.glob("*"))]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.zeros(0, dtype=kind), *parts])


def write_names(folder: Path, names: Sequence[str]) -> None:
    """Keep a list of names beside the columns; what they stand for is its place."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "names.json").write_text(json.dumps(list(names)))


def read_names(folder: Path) -> list[str]:
    """Return the names beside the columns, or none."""
    path = folder / "names.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def count_by_value(parts: Sequence[tuple[Column, Column]]) -> tuple[Column, Column]:
    """Return the distinct values of some (values, counts), sorted, and the sum of each's counts."""
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    values = np.concatenate([part[0] for part in parts])
    counts = np.concatenate([part[1] for part in parts])
    distinct, place = np.unique(values, return_inverse=True)
    return distinct, np.bincount(place, weights=counts, minlength=len(distinct)).astype(np.int64)
