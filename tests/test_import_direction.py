from pathlib import Path

import pytest

from support.import_direction import breaches

ROOT = Path(__file__).resolve().parents[1]


def test_the_project_keeps_its_import_direction() -> None:
    assert breaches(ROOT) == []


@pytest.mark.parametrize(
    ("path", "source", "is_breach"),
    [
        ("training/a.py", "from pipelines.contracts import errors\n", False),
        ("training/a.py", "from pipelines import storage\n", True),
        ("training/a.py", "def f():\n    import pipelines.storage\n", True),
        ("validation/a.py", "import training.bundle.split_scores\n", False),
        ("validation/a.py", "import training.launch.launcher\n", True),
        ("pipelines/a.py", "import training.launch.launcher\n", True),
        ("pipelines/a.py", "def f():\n    import training.launch.launcher\n", False),
        ("pipelines/contracts/a.py", "from pipelines import storage\n", True),
        ("dags/a.py", "import validation\n", True),
    ],
)
def test_a_breach_is_found(tmp_path: Path, path: str, source: str, is_breach: bool) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    assert bool(breaches(tmp_path)) is is_breach
