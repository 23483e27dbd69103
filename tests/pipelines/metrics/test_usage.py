"""What a process and its children use: CPU time, the peak of memory, and how much there may be."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from pipelines.metrics.usage import UsageMeter, memory_limit_bytes

MIB = 2**20
BURN = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
HOLD = "import time\nheld = bytearray(b'x') * (200 * 2**20)\nprint('held', flush=True)\ninput()"
WITH_CHILD = """
import subprocess
import sys
import time
from contextlib import closing
from pipelines.metrics.usage import UsageMeter, family_memory_bytes
family_memory_bytes()  # It imports what it needs.
with closing(UsageMeter(look_every_s=0.05)) as meter:
    alone = family_memory_bytes()
    child = subprocess.Popen(
        [sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    time.sleep(0.5)
    child.communicate(b"\\n")
    print(alone, meter.read().peak_memory_bytes)
"""
SHORT_PEAK = """
from contextlib import closing
from pipelines.metrics.usage import UsageMeter
for size in (300, 0):
    with closing(UsageMeter(look_every_s=60)) as meter:
        held = bytearray(b"x") * (size * 2**20)
        del held
        print(meter.read().peak_memory_bytes)
"""


def test_a_child_that_has_ended_counts_with_its_processor_time() -> None:
    with closing(UsageMeter()) as meter:
        subprocess.run([sys.executable, "-c", BURN], check=True)
        usage = meter.read()
    assert 0.5 <= usage.cpu_s < 5 and meter.wall_s >= 0.5


def test_a_child_counts_with_its_memory_while_it_lives() -> None:
    """In a family of its own: the one that runs the tests has servers, which grow meanwhile."""
    command = [sys.executable, "-c", WITH_CHILD, HOLD]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    alone, peak = map(int, done.stdout.split())
    assert alone + 200 * MIB <= peak < alone + 300 * MIB


def test_where_the_processes_of_others_may_not_be_read_the_own_memory_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: psutil.Process, recursive: bool) -> list[psutil.Process]:
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(psutil.Process, "children", refuse)
    with closing(UsageMeter()) as meter:
        assert meter.read().peak_memory_bytes > 10 * MIB


def test_an_own_peak_between_two_looks_is_found_and_one_of_before_is_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORT_PEAK], capture_output=True, text=True, check=True
    )
    first, second = (int(word) for word in done.stdout.split())
    assert first >= 300 * MIB
    assert second < 200 * MIB, "the peak of the former stage is not that of this one"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"": "max", "pods": "900000", "pods/one": "max"}, 900000),
        ({"pods": "900000", "pods/one": "400000"}, 400000),
        ({"pods": "max", "pods/one": "max"}, None),
        ({}, None),
        ({"pods/one": str(2**62)}, None),
    ],
)
def test_the_memory_limit_is_the_tightest_of_the_control_groups_above(
    tmp_path: Path, limits: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "groups" / "pods" / "one").mkdir(parents=True)
    for group, limit in limits.items():
        (tmp_path / "groups" / group / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "own").write_text("0::/pods/one\n")
    found = memory_limit_bytes(tmp_path / "groups", tmp_path / "own")
    assert found == (expected or psutil.virtual_memory().total)
