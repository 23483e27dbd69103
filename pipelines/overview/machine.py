"""What is installed on this machine, against the tested versions, and how much disk is free.

Tested in tests/pipelines/overview/test_doctor.py.
"""

import os
import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import pipelines
from pipelines import storage
from pipelines.overview.diagnosis import Disk, Version
from pipelines.settings import Settings

PACKAGES = (
    "torch",
    "pytorch-lightning",
    "mlflow",
    "apache-airflow-core",
    "pyarrow",
    "great-expectations",
)
_GIB = 2**30


def find_constraints() -> Path | None:
    """Return the file of tested versions beside this code or in the working folder, or None."""
    [package] = pipelines.__path__
    places = (Path(package).parent, Path.cwd())
    found = (place / "constraints.txt" for place in places)
    return next((path for path in found if path.is_file()), None)


def read_versions(constraints: Path | None) -> tuple[Version, ...]:
    """Return the packages that results depend on, with the version that was tested."""
    text = constraints.read_text() if constraints else ""
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    tested = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}
    return tuple(
        Version(package=name, installed=_installed(name), tested=tested.get(name, ""))
        for name in PACKAGES
    )


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def free_disks(settings: Settings | None) -> tuple[Disk, ...]:
    """Return each local disk that is written to, once."""
    places = [tempfile.gettempdir(), os.getcwd()]
    if settings is not None:
        named = (settings.home, settings.workspace_location, settings.work_folder)
        uris = [storage.to_uri(place) for place in named if place]
        places = [str(storage.local_path(uri)) for uri in uris if storage.is_local(uri)]
        places.append(tempfile.gettempdir())
    disks: dict[int, Disk] = {}
    for place in places:
        path = nearest(Path(place))
        free_gib = shutil.disk_usage(path).free / _GIB
        disks.setdefault(path.stat().st_dev, Disk(path=str(path), free_gib=free_gib))
    return tuple(disks.values())


def nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    absolute = path.expanduser().absolute()
    return next(each for each in (absolute, *absolute.parents) if os.path.exists(each))
