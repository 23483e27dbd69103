"""Who may import whom: import-linter's contracts in pyproject.toml, and ruff for heavy imports."""

import shutil
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
BREACHES = {
    "training/data/planted.py": "from pipelines import storage\n",
    "training/data/hidden.py": "def f():\n    import pipelines.storage\n",
    "training/data/upward.py": "import training.model.ranker\n",
    "validation/planted.py": "import training.launch.launcher\n",
    "validation/of_a_room.py": "import pipelines.registry.registry\n",
    "pipelines/contracts/planted.py": "from pipelines import storage\n",
    "pipelines/registry/planted.py": "def f():\n    import pipelines.stages.runner\n",
}
HEAVY = {
    "pipelines/planted.py": "import training.launch\n",
    "pipelines/torch.py": "import torch\n",
    "dags/planted.py": "import validation\n",
}
LIGHT = {
    "pipelines/inside.py": "def f():\n    import training.launch\n",
    "training/planted.py": "import torch\n",
}


def test_breaches_and_cycles_are_found(repository: Path, tmp_path: Path) -> None:
    for package in ("pipelines", "training", "validation"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / package, tmp_path / package, ignore=ignore)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    cycle = {
        "training/data/one.py": "import training.data.two\n",
        "training/data/two.py": "def f():\n    import training.data.one\n",
    }
    for path, source in (BREACHES | cycle).items():
        (tmp_path / path).write_text(source)
    command = [str(BIN / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    missed = [p for p in BREACHES if p.removesuffix(".py").replace("/", ".") not in done.stdout]
    assert missed == []
    assert "No cycles are allowed in training.data" in done.stdout


def test_heavy_imports_at_the_top_of_a_file_are_found(repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "pyproject.toml", tmp_path)
    for path, source in (HEAVY | LIGHT).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(source)
    command = [str(BIN / "ruff"), "check", "--no-cache", "--select", "TID253", "."]
    command += ["--output-format", "concise"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert {line.partition(":")[0] for line in done.stdout.splitlines() if "TID253" in line} == {
        *HEAVY
    }


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
