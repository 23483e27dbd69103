"""Which code this is: what changes the digest and what does not, with git and without."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pipelines.contracts import code_identity
from pipelines.contracts.code_identity import (
    MODEL_CODE,
    PROJECT_CODE,
    code_digest,
    code_version,
    digest_code,
    digest_meaning,
    environment,
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with the folders of this one."""
    root = tmp_path / "project"
    for folder in (
        "pipelines/contracts",
        "pipelines/snapshot",
        "training/model",
        "training/fitting",
        "validation",
        "docs",
    ):
        (root / folder).mkdir(parents=True)
        (root / folder / "code.py").write_text(f"# {folder}\n")
    return root


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *author, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("changed", "is_another_model", "is_another_version"),
    [
        ("training/model/code.py", True, True),
        ("training/fitting/added.py", True, True),
        ("pipelines/contracts/config.py", True, True),
        ("pipelines/snapshot/kernel.py", True, True),
        ("pipelines/contracts/alert.py", False, True),
        ("pipelines/storage.py", False, True),
        ("validation/code.py", False, True),
        ("docs/code.py", False, False),
        ("training/notes.md", False, False),
    ],
)
def test_only_what_decides_a_model_s_quality_is_another_model(
    project: Path, changed: str, is_another_model: bool, is_another_version: bool
) -> None:
    before, version = digest_meaning(project, MODEL_CODE), code_version(project)
    (project / changed).write_text("changed = True\n")
    assert (digest_meaning(project, MODEL_CODE) != before) is is_another_model
    assert (code_version(project) != version) is is_another_version
    assert code_version(project).split("+code.")[0] == metadata.version("homefeed-retrain")


def test_a_moved_file_is_another_model_and_a_moved_project_is_not(project: Path) -> None:
    before = digest_meaning(project, MODEL_CODE)
    moved = project.rename(project.with_name("elsewhere"))
    assert digest_meaning(moved, MODEL_CODE) == before
    (moved / "training/model/code.py").rename(moved / "training/model/core.py")
    assert digest_meaning(moved, MODEL_CODE) != before


@pytest.mark.parametrize(
    ("text", "is_another"),
    [
        ('"""What it does now."""\n\ndef half(x):\n    # why\n    return 0.5 * x\n', False),
        (
            '"""A module."""\ndef half(x):\n    """Halve."""\n    return (0.5\n            * x)',
            False,
        ),
        ('"""A module."""\ndef half(x):\n    return 0.4 * x\n', True),
    ],
)
def test_a_comment_is_no_other_code_and_a_constant_is(
    project: Path, text: str, is_another: bool
) -> None:
    path = project / "training/model/code.py"
    path.write_text('"""A module."""\ndef half(x):\n    return 0.5 * x\n')
    before = digest_meaning(project, MODEL_CODE)
    path.write_text(text)
    assert (digest_meaning(project, MODEL_CODE) != before) is is_another


OTHERS = "alert arrow artifacts base code_identity errors files judgement mlflow_errors processes"
OTHERS = [
    f"contracts.{name}"
    for name in f"{OTHERS} progress reasons run_layout stage_table upgrades".split()
]
OTHERS += ["places", "metrics", "storage", "settings", "deletion", "plain_text", "recipes"]
OTHERS = (*(f"pipelines.{name}" for name in (*OTHERS, "snapshot.spark", "snapshot.pool")),
          "training.environment")  # fmt: skip
"""What fitting and building import though it decides no model's quality."""


def test_all_that_a_model_is_made_by_is_part_of_its_code(repository: Path) -> None:
    ask = "import sys, training.fitting.fit, pipelines.snapshot.build; print(*sys.modules)"
    told = subprocess.check_output([sys.executable, "-c", ask], text=True).split()
    ours = [name for name in told if name.startswith(("pipelines.", "training."))]
    paths = [Path(n.replace(".", "/") + ".py") for n in ours if not n.startswith(OTHERS)]
    files = [path for path in paths if (repository / path).exists()]  # A folder is no file.
    assert len(files) > 30
    assert [f for f in files if not any(f.is_relative_to(part) for part in MODEL_CODE)] == []


def test_in_a_checkout_or_an_image_the_version_is_the_commit(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = code_version(project)
    for told, version in (("1a2b3c4d5e6f", "1a2b3c4d5e6f"), ("unknown", alone), ("", alone)):
        monkeypatch.setenv("HOMEFEED_IMAGE_VERSION", told)
        assert code_version(project) == version
    git(project.parent, "init", "--quiet")
    git(project.parent, "commit", "--quiet", "--allow-empty", "--message", "somebody else's")
    assert code_version(project) == alone
    (project / ".git").write_text("gitdir: /nowhere\n")  # Git refuses it.
    assert code_version(project) == alone
    (project / ".git").unlink()
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "first")
    commit = git(project, "rev-parse", "--short=12", "HEAD")
    digest = digest_code(project, PROJECT_CODE)
    (project / "ours").mkdir()
    (project / "ours/recipes.py").write_text("def careful(): ...\n")  # somebody's recipe beside it
    assert (code_version(project), digest_code(project, PROJECT_CODE)) == (commit, digest)
    (project / "docs/code.py").write_text("x = 1\n")
    assert code_version(project) == f"{commit}-dirty"


def test_what_a_process_runs_on_is_described(repository: Path, tmp_path: Path) -> None:
    found = environment()
    assert code_digest() == digest_meaning(repository, MODEL_CODE)
    assert found.code_digest == code_digest() and found.code_version == code_version()
    assert len(found.project_digest) == 64 and found.project_digest != found.code_digest
    assert found.packages["torch"] == metadata.version("torch")
    assert found.processor and found.num_cores >= 1
    told = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n"
    (tmp_path / "0000:01:00.0").mkdir()
    assert code_identity.names_of_gpus(tmp_path) == ()
    (tmp_path / "0000:01:00.0" / "information").write_text(told)
    assert code_identity.names_of_gpus(tmp_path) == ("NVIDIA H100 80GB HBM3",)
