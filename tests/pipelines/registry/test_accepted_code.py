"""Code that trained a model, kept and run again: its wheel, its pins, what is in the way."""

import errno
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Standing
from pipelines.contracts.code_identity import MODEL_CODE, code_digest, digest_meaning
from pipelines.contracts.errors import ConfigurationError
from pipelines.registry import accepted_code
from pipelines.registry.accepted_code import PINS, install, keep, make_wheel, place_of
from support.runs import make_run

VERSION = "import importlib.metadata as m, pipelines as p; print(m.version('pyarrow'), p.__file__)"


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    """A run of which this very code is the accepted one, kept in its workspace."""
    place = place_of(storage.to_uri(tmp_path / "workspace"), code_digest())
    standing = Standing(anchor_code_digest=code_digest(), anchor_code_uri=place)
    keep((run := make_run(tmp_path, standing=standing)).workspace_uri)
    return run


def files_of(run: ResolvedRun) -> tuple[Path, Path]:
    """Return the wheel and the pins."""
    folder = storage.local_path(run.standing.anchor_code_uri)
    [wheel] = folder.glob("*.whl")
    return wheel, folder / PINS


def test_a_wheel_holds_the_code_as_it_is_and_is_made_once(run: ResolvedRun, tmp_path: Path) -> None:
    wheel, pins = files_of(run)
    assert "torch==" in pins.read_text() and "homefeed" not in pins.read_text()
    pins.write_text("torch==1\n")
    whole = wheel.read_bytes()
    assert (wheel.name, whole) == make_wheel()
    wheel.write_bytes(b"half")
    keep(run.workspace_uri)
    assert (wheel.read_bytes(), pins.read_text()) == (whole, "torch==1\n")
    options = ["--no-index", "--no-deps", "--quiet", "--target", str(tmp_path / "by pip")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    assert digest_meaning(tmp_path / "by pip", MODEL_CODE) == code_digest()
    assert (tmp_path / "by pip/pipelines/alerts/templates").is_dir()


def test_it_runs_in_front_of_the_installed_packages_where_they_are_as_pinned(
    run: ResolvedRun, tmp_path: Path
) -> None:
    python, variables = install(run, tmp_path / "code")
    assert python == sys.executable
    told = subprocess.check_output([python, "-c", VERSION], env=variables, text=True)
    assert str(tmp_path / "code") in told
    assert not (storage.local_path(run.workspace_uri) / "environments").exists()


@pytest.mark.parametrize("spoiled", ["gone", "damaged", "without pins"])
def test_a_wheel_that_is_gone_or_does_not_install_is_named(
    run: ResolvedRun, tmp_path: Path, spoiled: str
) -> None:
    wheel, pins = files_of(run)
    if spoiled == "damaged":
        content = bytearray(wheel.read_bytes())
        content[5_000:5_100] = bytes(100)
        wheel.write_bytes(content)
    else:
        (wheel if spoiled == "gone" else pins).unlink()
    said = "cannot be installed" if spoiled == "damaged" else "holds no wheel with its"
    with pytest.raises(ConfigurationError, match=said):
        install(run, tmp_path / "code")


def wheel_of(folder: Path, name: str, version: str) -> None:
    """Write a wheel with nothing in it."""
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        info, purpose = f"{name}-{version}.dist-info", "Root-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/METADATA", f"Name: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\n{purpose}")
        wheel.writestr(f"{info}/RECORD", "")


def test_other_pins_get_an_environment_of_their_own_from_local_wheels_once(
    run: ResolvedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_of(run)[1].write_text("pyarrow==0.0.1\n")
    environments = storage.local_path(run.workspace_uri) / "environments"
    with pytest.raises(ConfigurationError, match=r"be installed \(pip: .*pyarrow==0.0.1"):
        install(run, tmp_path / "without wheels")
    assert list(environments.iterdir()) == []  # nothing half made is left
    wheel_of(tmp_path / "wheels", "pyarrow", "0.0.1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    python, variables = install(run, tmp_path / "code")
    told = subprocess.check_output([python, "-c", VERSION], env=variables, text=True)
    assert told.startswith("0.0.1 ") and str(tmp_path / "code") in told
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert install(run, tmp_path / "again")[0] == python


def test_an_environment_whose_deletion_was_begun_is_made_anew(
    run: ResolvedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_of(run)[1].write_text("pyarrow==0.0.1\n")
    wheel_of(tmp_path / "wheels", "pyarrow", "0.0.1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    python, _ = install(run, tmp_path / "code")
    (Path(python).parents[1] / PINS).unlink()
    Path(python).unlink()
    again, variables = install(run, tmp_path / "again")
    told = subprocess.check_output([again, "-c", VERSION], env=variables, text=True)
    assert again == python and told.startswith("0.0.1 ")


def test_an_environment_on_a_read_only_disk_is_named(
    run: ResolvedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_of(run)[1].write_text("pyarrow==0.0.1\n")

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(accepted_code, "scratch_in", refuse)
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        install(run, tmp_path / "code")
