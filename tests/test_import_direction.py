"""Who may import whom: import-linter's contracts in pyproject.toml, and ruff for heavy imports."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def lint_imports(root: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(BIN / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path: Path, repository: Path) -> Path:
    """The project's packages and configuration, for a breach to be planted in."""
    for package in ("pipelines", "training", "validation"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / package, tmp_path / package, ignore=ignore)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_project_keeps_its_import_direction(repository: Path) -> None:
    done = lint_imports(repository)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_a_served_model_imports_nothing_that_it_does_not_declare(repository: Path) -> None:
    """`filelock` is no requirement of the MLflow model: locks and snapshots are for training."""
    code = (
        "import sys\n"
        "import mlflow, torch  # each may import filelock for itself\n"
        "sys.modules['filelock'] = None\n"
        "import training.bundle.serving_model\n"
        "print([name for name in sys.modules if name.startswith(('pipelines', 'training'))])\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "training.model.ranker" in done.stdout
    for name in ("pipelines.contracts.files", "training.data.reader", "training.fitting"):
        assert name not in done.stdout


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("training/data/planted.py", "from pipelines import storage\n"),
        ("training/data/planted.py", "def f():\n    import pipelines.storage\n"),
        ("training/data/planted.py", "import training.model.ranker\n"),
        ("validation/planted.py", "import training.launch.launcher\n"),
        ("validation/planted.py", "import pipelines.registry.registry\n"),
        ("pipelines/contracts/planted.py", "from pipelines import storage\n"),
        ("pipelines/registry/planted.py", "def f():\n    import pipelines.stages.runner\n"),
    ],
)
def test_a_breach_is_found(copied: Path, path: str, source: str) -> None:
    (copied / path).write_text(source)
    done = lint_imports(copied)
    assert done.returncode == 1, done.stdout
    assert path.removesuffix(".py").replace("/", ".") in done.stdout


def test_a_cycle_is_found(copied: Path) -> None:
    (copied / "training/data/one.py").write_text("import training.data.two\n")
    (copied / "training/data/two.py").write_text("def f():\n    import training.data.one\n")
    done = lint_imports(copied)
    assert done.returncode == 1, done.stdout
    assert "No cycles are allowed in training.data" in done.stdout


@pytest.mark.parametrize(
    ("path", "source", "is_breach"),
    [
        ("pipelines/planted.py", "import training.launch\n", True),
        ("pipelines/planted.py", "import torch\n", True),
        ("pipelines/planted.py", "def f():\n    import training.launch\n", False),
        ("dags/planted.py", "import validation\n", True),
        ("training/planted.py", "import torch\n", False),
    ],
)
def test_a_heavy_import_at_the_top_of_a_file_is_found(
    repository: Path, path: str, source: str, is_breach: bool
) -> None:
    command = [str(BIN / "ruff"), "check", "--select", "TID253", "--stdin-filename", path, "-"]
    done = subprocess.run(
        command, cwd=repository, input=source, capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) is is_breach, done.stdout
