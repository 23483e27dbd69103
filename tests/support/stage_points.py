"""The points at which a stage may be killed: before and after everything that it changes.

What a stage changes it changes by a call: a file is opened for writing, brought to the disk,
renamed, linked or removed, a folder is made or removed, a request that writes goes to the registry.
`watch` puts a named point before and after each such call, in the process that calls it, so the
points are found by running the stage once. A point's name holds no random part, so the same point
is found again in another process: it is a name and how many points of that name came before it.

Not for starting or killing processes (`support.stage_processes`).
"""

import builtins
import io
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Point = Callable[[str], None]
Place = tuple[str, int]
"""A point: its name, and how many of that name came before it."""

_OF_ONE_PATH = ("mkdir", "rmdir", "unlink", "remove", "fsync")
_OF_TWO_PATHS = ("rename", "replace", "link")
_ASKED_ONLY = ("search", "get", "list", "get-by-name", "get-history")
"""How the paths of MLflow's requests end that change nothing, though some are sent by POST."""
_RANDOM = re.compile(
    r"(?:(?<![0-9a-f])|(?<=%22))[0-9a-f]{32}(?![0-9a-f])|(?:(?<=output-)|(?<=working-))\d{8}T\d{12}-[0-9a-f]{8}|(?<=tmp)[a-z0-9_]{8}(?=/|$)"
    r"|(?:(?<=/version-)|(?<=/none_)|(?<= tmp/))[a-z0-9_]{8}(?=/|$)"
    r"|(?<='model_digest': ')[0-9a-f]{64}"  # MLmodel says when and by which run it was logged
    r"|(?<='about': \[')[0-9a-f]{64}"  # of an alert: the ruling, which names the model's MLflow run
    r"|(?<='at': ')\d{4}-\d\d-\d\dT[\d:.]+Z(?=')"  # of an alert: when the cycle was judged
    r"|\d{8}T\d{12}Z|(?<=[a-z][-.])[0-9a-f]{8}(?=\.json|\.txt)"
)


def without_random_parts(text: str) -> str:
    """Replace what is drawn anew in every process by a star."""
    return _RANDOM.sub("*", text)


class Places:
    """Counts the points that a process comes by, and calls `reach` at each."""

    def __init__(self, reach: Callable[[Place], None]) -> None:
        self._seen: Counter[str] = Counter()
        self._reach = reach

    def __call__(self, name: str) -> None:
        place = (name, self._seen[name])
        self._seen[name] += 1
        self._reach(place)


def verb_of(place: Place) -> str:
    """Return the class of a point: when it is, and of what kind the change is."""
    when, verb, *_ = place[0].split()
    return f"{when} {verb}"


def watch(home: Path, point: Point) -> None:
    """Put points around every change below a folder, and around every request that writes.

    It is for a process that ends afterwards: nothing is put back.
    """
    naming = _Naming(home)
    for name in _OF_ONE_PATH:
        _surround(os, name, point, naming.of_one_path(name))
    for name in _OF_TWO_PATHS:
        _surround(os, name, point, naming.of_two_paths(name))
    _surround(os, "open", point, naming.of_descriptor)
    for owner in (builtins, io):
        _surround(owner, "open", point, naming.of_stream)
    _watch_libraries(point, naming)


def _watch_libraries(point: Point, naming: "_Naming") -> None:
    """Put points around writes that do not come by Python's own calls, and around requests."""
    import pyarrow as pa
    import requests

    from pipelines import deletion

    _surround(pa.ipc, "new_file", point, lambda sink, *_: naming.named("write", sink))
    _surround(deletion, "remove", point, lambda uri: naming.named("remove", urlsplit(uri).path))
    _surround(requests.Session, "send", point, lambda _, request, **__: _named_request(request))


def _surround(owner: Any, name: str, point: Point, describe: Callable[..., str]) -> None:
    original = getattr(owner, name)

    def surrounded(*arguments: Any, **options: Any) -> Any:
        what = describe(*arguments, **options)
        if not what:
            return original(*arguments, **options)
        point(f"before {what}")
        found = original(*arguments, **options)
        point(f"after {what}")
        return found

    setattr(owner, name, surrounded)


def _named_request(request: Any) -> str:
    path = urlsplit(request.url).path
    if request.method in ("GET", "HEAD") or path.rpartition("/")[2] in _ASKED_ONLY:
        return ""
    return without_random_parts(f"{request.method} {path}")


class _Naming:
    """Names calls by what they change below a folder; '' is a call that changes nothing there."""

    def __init__(self, home: Path) -> None:
        self._home = f"{home}/"

    def named(self, verb: str, path: Any, folder: int | None = None) -> str:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        text = os.fsdecode(path)
        if folder is not None and not text.startswith("/"):
            text = f"{os.readlink(f'/proc/self/fd/{folder}')}/{text}"
        if not text.startswith(self._home):
            return ""
        return f"{verb} {without_random_parts(text.removeprefix(self._home))}"

    def of_one_path(self, verb: str) -> Callable[..., str]:
        return lambda path, *_, dir_fd=None, **__: self.named(verb, path, dir_fd)

    def of_two_paths(self, verb: str) -> Callable[..., str]:
        return lambda _, target, **__: self.named(verb, target)

    def of_descriptor(self, path: Any, flags: int, *_: Any, dir_fd: int | None = None) -> str:
        return self.named("create", path, dir_fd) if flags & os.O_CREAT else ""

    def of_stream(self, path: Any, mode: str = "r", *_: Any, **__: Any) -> str:
        is_written = any(letter in mode for letter in "wax+")
        return self.named("open", path) if is_written and not isinstance(path, int) else ""
