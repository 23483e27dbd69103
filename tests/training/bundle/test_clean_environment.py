"""The MLflow model where nothing is installed but what it declares: loaded, and served."""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from packaging.requirements import Requirement

from pipelines.registry import tracking
from support.mlflow_server import mlflow_server
from support.serving import free_port
from training.bundle.files import read_golden
from training.bundle.mlflow_model import log_bundle
from training.data.batches import MODEL_INPUTS

pytestmark = [pytest.mark.services, pytest.mark.slow]
LOAD = """
import importlib.util, json, sys
import mlflow, numpy
foreign = [n for n in ("pytorch_lightning", "airflow", "great_expectations", "pytest")
           if importlib.util.find_spec(n)]
assert not foreign, f"not a clean environment: {foreign}"
model = mlflow.pyfunc.load_model(sys.argv[1])
inputs = dict(numpy.load(sys.argv[2]))
numpy.save(sys.argv[3], model.predict(inputs)["probabilities"])
reads_files = {"training.data.reader", "pipelines.contracts.files"} & set(sys.modules)
assert not reads_files, f"a served model imports {reads_files}, whose packages it does not declare"
"""


def closure(requirements: list[str]) -> set[str]:
    """Return the names of distributions that these need, those of this machine's markers only."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        if requirement.name.lower() in found:
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            needed = importlib.metadata.requires(requirement.name) or []
            found.add(requirement.name.lower())
            parsed = [Requirement(text) for text in needed]
            waiting += [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def model_dir(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logged model's own folder, as a serving machine would download it."""
    folder = tmp_path_factory.mktemp("clean")
    with mlflow_server(folder / "mlflow") as url:
        client = mlflow.MlflowClient(tracking_uri=url)
        run_id = client.create_run("0").info.run_id
        uri = log_bundle(client, Path(trained[1].bundle_dir), run_id).uri
        with tracking.address_of_process(url):
            return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder / "model")))


@pytest.fixture(scope="module")
def clean_python(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees the declared requirements and what those need, and no more.

    The distributions are links to the installed ones: installing torch anew would take minutes and
    prove nothing else.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    declared = (model_dir / "requirements.txt").read_text().splitlines()
    for name in closure([line for line in declared if line.strip()]):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
        for entry in distribution.entry_points.select(group="console_scripts"):
            write_script(folder / "bin", entry)
    return folder / "bin" / "python"


def write_script(folder: Path, entry: importlib.metadata.EntryPoint) -> None:
    script = folder / entry.name
    script.write_text(
        f"#!{folder / 'python'}\nimport sys\nfrom {entry.module} import {entry.attr}\n"
        f"sys.exit({entry.attr}())\n"
    )
    script.chmod(0o755)


@pytest.fixture(scope="module")
def golden(trained, tmp_path_factory) -> tuple[Path, np.ndarray]:
    rows, expected = read_golden(Path(trained[1].bundle_dir), 3)
    path = tmp_path_factory.mktemp("golden") / "inputs.npz"
    np.savez(path, **{name: getattr(rows, name).numpy() for name in MODEL_INPUTS})
    return path, expected


def clean_environment(clean_python: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return kept | {
        "PATH": f"{clean_python.parent}:/usr/bin:/bin",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }


def test_it_loads_and_reproduces_its_golden_rows(
    model_dir: Path, clean_python: Path, golden: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, expected = golden
    command = [str(clean_python), "-c", LOAD, str(model_dir), str(path), str(tmp_path / "out.npy")]
    done = subprocess.run(
        command, env=clean_environment(clean_python), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() <= 1e-5


@contextlib.contextmanager
def served(model_dir: Path, clean_python: Path, log: Path) -> Iterator[str]:
    port = free_port()
    command = [str(clean_python), "-m", "mlflow", "models", "serve", "--model-uri", str(model_dir)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command,
            env=clean_environment(clean_python),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert server.poll() is None, log.read_text()[-3000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/ping", timeout=2):
                break
            time.sleep(0.3)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(server.pid, 15)
        server.wait(timeout=20)


def test_it_is_served_over_http(
    model_dir: Path, clean_python: Path, golden: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, expected = golden
    inputs = {name: array.tolist() for name, array in np.load(path).items()}
    with served(model_dir, clean_python, tmp_path / "serve.log") as url:
        request = urllib.request.Request(
            f"{url}/invocations",
            data=json.dumps({"inputs": inputs}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["predictions"]
    assert np.abs(np.array(found["probabilities"]) - expected).max() <= 1e-5
    assert "uncalibrated_probabilities" in found


def test_what_is_declared_is_what_is_installed(model_dir: Path) -> None:
    for line in (model_dir / "requirements.txt").read_text().splitlines():
        requirement = Requirement(line)
        assert importlib.metadata.version(requirement.name) in requirement.specifier
    assert sys.version_info >= (3, 11)
