"""The MLflow model where nothing is installed but what it declares: loaded, and served."""

import importlib.metadata
import json
import os
import subprocess
import urllib.request
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path

import mlflow
import numpy as np
import pytest
from packaging.requirements import Requirement

from pipelines.registry import tracking
from support.serving import Process, free_port
from training.bundle.files import read_golden
from training.bundle.mlflow_model import log_bundle
from training.data.batches import MODEL_INPUTS

pytestmark = [pytest.mark.services, pytest.mark.slow]
LOAD = """
import importlib.util, sys
import mlflow, numpy
foreign = [n for n in ("pytorch_lightning", "airflow", "great_expectations", "pytest")
           if importlib.util.find_spec(n)]
assert not foreign, f"not a clean environment: {foreign}"
model = mlflow.pyfunc.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(dict(numpy.load(sys.argv[2])))["probabilities"])
reads_files = {"training.data.reader", "pipelines.contracts.files"} & set(sys.modules)
assert not reads_files, f"a served model imports {reads_files}, whose packages it does not declare"
"""


def add_needed(requirements: Iterable[str], found: dict[str, Distribution]) -> None:
    """Add the distributions that these need on this machine, by their names."""
    for each in map(Requirement, requirements):
        is_needed = each.marker is None or each.marker.evaluate({"extra": ""})
        if is_needed and each.name.lower() not in found:
            found[each.name.lower()] = importlib.metadata.distribution(each.name)
            add_needed(found[each.name.lower()].requires or [], found)


def make_clean_python(folder: Path, declared: list[str]) -> Path:
    """Return an interpreter that sees some requirements and what those need, and no more.

    The distributions are links to the installed ones: installing torch anew would take minutes and
    prove nothing else.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    python = folder / "bin" / "python"
    found: dict[str, Distribution] = {}
    add_needed(filter(str.strip, declared), found)
    for distribution in found.values():
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
        for entry in distribution.entry_points.select(group="console_scripts"):
            script = python.with_name(entry.name)
            script.write_text(
                f"#!{python}\nimport sys\nfrom {entry.module} import {entry.attr}\n"
                f"sys.exit({entry.attr}())\n"
            )
            script.chmod(0o755)
    return python


def test_it_is_loaded_and_served_and_reproduces_its_golden_rows(
    trained, tracking_uri, client, run_id, tmp_path: Path
) -> None:
    bundle_dir = Path(trained[1].bundle_dir)
    uri = log_bundle(client, bundle_dir, run_id).uri
    with tracking.address_of_process(tracking_uri):
        folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "model"))
    declared = (Path(folder) / "requirements.txt").read_text().splitlines()
    python = make_clean_python(tmp_path / "venv", declared)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment = kept | {"PATH": f"{python.parent}:/usr/bin:/bin"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    rows, expected = read_golden(bundle_dir, 3)
    inputs = {name: getattr(rows, name).numpy() for name in MODEL_INPUTS}
    np.savez(tmp_path / "inputs.npz", **inputs)

    arguments = [folder, str(tmp_path / "inputs.npz"), str(tmp_path / "out.npy")]
    command = [str(python), "-c", LOAD, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() <= 1e-5

    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(python), "-m", "mlflow", "models", "serve", "--model-uri", folder]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    server = Process(command, tmp_path / "serve.log", f"{url}/ping", {"env": environment})
    with server.running():
        request = urllib.request.Request(
            f"{url}/invocations",
            data=json.dumps({"inputs": {n: a.tolist() for n, a in inputs.items()}}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["predictions"]
    assert np.abs(np.array(found["probabilities"]) - expected).max() <= 1e-5
    assert "uncalibrated_probabilities" in found
