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
CYCLE = {
    "training/data/one.py": "import training.data.two\n",
    "training/data/two.py": "def f():\n    import training.data.one\n",
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


def said_of(root: Path, repository: Path, files: dict[str, str], *command: str) -> str:
    """Return what a checker says of a folder with the project's rules and these files."""
    shutil.copy(repository / "pyproject.toml", root)
    for path, source in files.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(source)
    words = [str(BIN / command[0]), *command[1:]]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    return done.stdout


def test_breaches_and_cycles_are_found(repository: Path, tmp_path: Path) -> None:
    for package in ("pipelines", "training", "validation"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / package, tmp_path / package, ignore=ignore)
    said = said_of(tmp_path, repository, BREACHES | CYCLE, "lint-imports", "--no-cache")
    missed = [p for p in BREACHES if p.removesuffix(".py").replace("/", ".") not in said]
    assert missed == []
    assert "No cycles are allowed in training.data" in said


def test_heavy_imports_at_the_top_of_a_file_are_found(repository: Path, tmp_path: Path) -> None:
    command = ("ruff", "check", "--no-cache", "--select", "TID253", "--output-format", "concise")
    said = said_of(tmp_path, repository, HEAVY | LIGHT, *command)
    assert {line.partition(":")[0] for line in said.splitlines() if "TID253" in line} == {*HEAVY}


def test_a_light_stage_has_no_torch_and_a_training_s_stage_no_lightning() -> None:
    """Each took seconds at every start: for a name of a type, and for the file of metrics."""
    code = (
        "import sys\n"
        "import validation.report.cycles_page, validation.model_gate.baselines\n"
        "import training.fitting.metrics_file, training.bundle.mlflow_model\n"
        "print({'torch', 'pytorch_lightning'} & {*sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


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
