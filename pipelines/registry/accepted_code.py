"""The code that trained a model, kept where it can be run again: a wheel of it, and its pins.

    <workspace>/accepted_code/<code digest>/requirements.txt          what was installed beside it
    <workspace>/accepted_code/<code digest>/homefeed_retrain-*.whl    written last
    <workspace or work folder>/environments/<digest>/                 Python with other packages

`train_challenger` leaves its code here, so the code of all that is promoted is here. Where the
packages that decide a model are as pinned, the wheel is unpacked in front of them; else its pins
are installed from wheels that pip finds without an index (`PIP_FIND_LINKS`). Who may write the
workspace may run code in `train_anchor`. Not for what is run: that is `pipelines.stages.train`.
"""

import base64
import fnmatch
import functools
import hashlib
import io
import os
import platform
import subprocess
import sys
import sysconfig
import zipfile
import zlib
from importlib import metadata
from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import (
    IMAGE_VERSION,
    PACKAGES,
    PROJECT_CODE,
    ROOT,
    code_digest,
    environment,
)
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.processes import die_with_parent
from pipelines.places.folders import put_in_place, scratch_in

NAME, PINS = "homefeed-retrain", "requirements.txt"


def place_of(workspace_uri: str, digest: str) -> str:
    """Return the URI of the folder that keeps the code of a digest."""
    return storage.join(workspace_uri, "accepted_code", digest)


def keep(workspace_uri: str) -> None:
    """Publish this process's code with its pins; the pins of the first who does it stay.

    Raises:
        ConfigurationError: the workspace cannot be written.
    """
    place = place_of(workspace_uri, code_digest())
    if not storage.exists(pins := storage.join(place, PINS)):
        found = {each.metadata["Name"].lower(): each.version for each in metadata.distributions()}
        named = ((name.replace("_", "-"), version) for name, version in found.items())
        lines = sorted(f"{name}=={version}\n" for name, version in named if name != NAME)
        storage.write_bytes(pins, "".join(lines).encode())
    name, content = make_wheel()
    if not storage.exists(uri := storage.join(place, name)) or storage.read_bytes(uri) != content:
        storage.write_bytes(uri, content)


def make_wheel(root: Path = ROOT) -> tuple[str, bytes]:
    """Return name and bytes of a wheel of the code below a folder: the same code, the same bytes.

    By Python's specification of the binary distribution format, so that pip can install it too.
    """
    version, purpose = metadata.version(NAME), "Root-Is-Purelib: true\nTag: py3-none-any\n"
    stem = f"{NAME.replace('-', '_')}-{version}"
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for package in PROJECT_CODE
        for path in sorted((root / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    told = {
        "METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n",
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: {NAME}\n{purpose}",
        "entry_points.txt": metadata.distribution(NAME).read_text("entry_points.txt") or "",
    }
    files |= {f"{stem}.dist-info/{name}": text.encode() for name, text in told.items()}
    record = f"{stem}.dist-info/RECORD"
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as wheel:
        for name, content in files.items():
            # The date would be another one each time.
            wheel.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return f"{stem}-py3-none-any.whl", sink.getvalue()


def install(run: ResolvedRun, into: Path) -> tuple[str, dict[str, str]]:
    """Unpack a run's accepted code into a new folder, with what it needs to run there.

    Returns:
        The Python to run it with, and its environment variables.

    Raises:
        ConfigurationError: the wheel is gone or damaged, or its pins cannot be installed here.
        TransientStorageError: the storage failed or is full.
    """
    place = run.standing.anchor_code_uri
    wheels = fnmatch.filter(names := storage.list_names(place), "*.whl")
    if not wheels or PINS not in names:
        raise ConfigurationError(f"{place} holds no wheel with its {PINS}")
    uri = storage.join(place, wheels[-1])
    content, pins = storage.read_bytes(uri), storage.read_bytes(storage.join(place, PINS)).decode()
    with storage.translated_errors(str(into), "unpacking the accepted code in"):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as wheel:
                wheel.extractall(into)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise ConfigurationError(f"{uri} cannot be installed: {error}") from error
    python, ours = sys.executable, environment().packages
    asked = {name: version for name, _, version in (pin.partition("==") for pin in pins.split())}
    if any(asked.get(name) != ours.get(name) for name in PACKAGES):
        python = _python_with(pins, run)
    # Recipes' own functions are looked for where this process does; libraries are Python's.
    libraries = tuple(map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")))
    own = [os.path.abspath(each) for each in sys.path if not each.startswith(libraries)]
    # The commit that an image names is that of today's code.
    variables = {name: value for name, value in os.environ.items() if name != IMAGE_VERSION}
    variables.pop("HOMEFEED_SPARK_OPTIONS", None)  # A cluster's executors have today's code.
    path = os.pathsep.join([str(into), *own])
    # A checkout that this process stands in would come before PYTHONPATH.
    return python, variables | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _python_with(pins: str, run: ResolvedRun) -> str:
    """Return the Python of an environment with the pinned packages, made here where there is none.

    It appears as a whole or not at all.
    """
    kept = own_temporary_folder("environments") if not run.work_folder else Path(run.work_folder)
    if storage.is_local(run.workspace_uri):
        kept = storage.local_path(run.workspace_uri)
    key = digest_of([pins, platform.python_version(), platform.machine()])
    folder = kept / "environments" / key[:16]
    with storage.translated_errors(str(folder), "making"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not (folder / PINS).exists():  # Who deletes one takes its pins first.
            with scratch_in(folder.parent) as scratch:
                made = scratch / "environment"
                (scratch / PINS).write_text(pins)
                python, listed = str(made / "bin" / "python"), str(scratch / PINS)
                of_pip = (*("pip", "--python", python, "install"), *("--no-index", "--no-deps"))
                _do("venv", "--without-pip", str(made))
                _do(*of_pip, "--requirement", listed)
                (scratch / PINS).rename(made / PINS)
                if not (folder / PINS).exists():  # Another machine may have been quicker.
                    put_in_place(made, folder)
    return str(folder / "bin" / "python")


def _do(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509
    )
    if done.returncode:
        said = [*done.stdout.splitlines(), *done.stderr.splitlines()] or ["nothing"]
        raise ConfigurationError(
            f"its pins cannot be installed ({command[0]}: {said[-1]}); PIP_FIND_LINKS names the "
            f"folder with their wheels"
        )
