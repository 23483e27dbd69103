"""A scratch folder belongs to whoever holds it, also where its process cannot be seen."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.places.folders import scratch_in

HOLD = """
import sys
from pathlib import Path
from pipelines.places.folders import scratch_in
with scratch_in(Path(sys.argv[1])) as folder:
    (folder / "rows").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""
IN_A_NAMESPACE = ("--user", "--map-root-user", "--pid", "--fork", "--kill-child")


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a scratch folder in a process namespace of its own."""
    unshare = shutil.which("unshare")
    is_allowed = (
        unshare is not None
        and not subprocess.run(
            [unshare, *IN_A_NAMESPACE, "true"], capture_output=True, check=False
        ).returncode
    )
    if unshare is None or not is_allowed:
        pytest.skip("needs the right to make a process namespace")
    command = [unshare, *IN_A_NAMESPACE, sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def folder_of(holder: subprocess.Popen[str]) -> Path:
    assert holder.stdout is not None
    return Path(holder.stdout.readline().strip())


def test_the_folder_of_a_live_builder_in_another_container_is_left_alone(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = folder_of(holder)
    with scratch_in(tmp_path) as own:
        assert own != folder and (folder / "rows").read_text() == "half"
    assert folder.is_dir()


def test_the_folder_of_a_dead_one_is_removed(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = folder_of(holder)
    holder.kill()
    holder.wait()
    for _ in range(50):  # The kernel ends the namespace's processes a moment later.
        with scratch_in(tmp_path):
            if not folder.exists():
                break
        time.sleep(0.1)
    assert not folder.exists()
