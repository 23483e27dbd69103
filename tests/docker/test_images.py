"""What the images are built of: versions that are tested, and nothing but code."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    pairs = re.findall(r"^\s*([\w.\[\]-]+)==([^\s#;]+)", text, re.MULTILINE)
    return {normal(name): version for name, version in pairs}


def run(*words: str | Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    told = {"cwd": ROOT, "env": {"PATH": path}, "capture_output": True, "text": True}
    return subprocess.run(words, check=False, **told)


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    """Every version that an image's build is held to."""
    printed = pins(run("docker/pins.sh", "requirements.txt").stdout)
    ours = pins((ROOT / "requirements.txt").read_text())
    assert printed == {name: version for name, version in ours.items() if name != "torch"}
    return pins((ROOT / "constraints.txt").read_text()) | printed


@pytest.mark.parametrize("image", ["airflow", "mlflow", "trainer", "ranker"])
def test_an_image_is_of_tested_versions_of_a_user_of_its_own_and_names_its_code(
    image, pinned
) -> None:
    text = (DOCKER / "requirements" / f"{image}.txt").read_text()
    names = [line.split("<")[0].strip() for line in text.splitlines() if line[:1].isalpha()]
    assert names and [name for name in names if normal(name) not in pinned] == []
    is_thin = not re.search(r"^(torch|pytorch|duckdb|great)", text, re.MULTILINE)
    assert is_thin == (image in ("airflow", "mlflow"))
    file = "trainer" if image == "ranker" else image
    text = (DOCKER / f"{file}.Dockerfile").read_text()
    assert text.index("ARG BASE_IMAGE=docker.io/library/python:3.11-slim") < text.index("FROM")
    assert re.search(r"^USER 5000[01]:0$", text, re.MULTILINE)
    assert 'org.opencontainers.image.revision="${CODE_VERSION}"' in text
    assert 'org.opencontainers.image.base.name="${BASE_IMAGE}"' in text
    assert "constraints.txt" in text and "pins.txt" in text


def test_only_code_and_requirements_reach_a_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in lines if line and line[0] != "#"][0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        *("constraints.txt", "requirements.txt", "pyproject.toml", "dags"),
        *("pipelines", "training", "validation", "docker/requirements", "docker/pins.sh"),
        *("docker/entrypoint.sh", "docker/health.py", "docker/init.py"),
        *("docker/mlflow_server.sh", "docker/s3"),
    }


def test_without_an_engine_the_build_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to(str(shutil.which("dirname")))
    done = run("/bin/sh", "docker/build.sh", path=str(tmp_path))
    assert done.returncode == 69
    assert "neither docker nor podman answers" in done.stderr


def test_a_docker_without_its_daemon_gives_way_to_podman(tmp_path: Path) -> None:
    for name in ("dirname", "git"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name, code in (("docker", 1), ("podman", 0)):
        script = f'#!/bin/sh\n[ "$1" = info ] && exit {code}\necho "{name} $1"\n'
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    done = run("/bin/sh", "docker/build.sh", path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*["podman", "build"] * 6, "podman", "images"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["scheduler", "--pid", "a b"], "airflow|scheduler|--pid|a b|"),
        (["airflow", "db", "check-migrations"], "airflow|db|check-migrations|"),
        (["bash", "-c", "exec airflow triggerer"], "airflow|triggerer|"),
        ([], "airflow|"),
    ],
)
def test_the_thin_image_takes_commands_as_airflow_s_chart_writes_them(tmp_path, words, expected):
    program = tmp_path / "airflow"
    program.write_text("#!/bin/sh\nprintf '%s|' airflow \"$@\"\n")
    program.chmod(0o755)
    done = run(DOCKER / "entrypoint.sh", *words, path=f"{tmp_path}:/usr/bin:/bin")
    assert done.stdout == expected
