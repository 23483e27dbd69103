"""What a process and its children use: CPU time, the peak of memory, and how much there may be."""

import subprocess
import sys
import time
from contextlib import closing
from unittest.mock import Mock

import psutil
import pytest

from pipelines.metrics.usage import UsageMeter, family_memory_bytes, memory_limit_bytes

MIB = 2**20
BURN = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
HOLD = "import time\nheld = bytearray(b'x') * (200 * 2**20)\nprint('held', flush=True)\ninput()"


def test_a_child_that_has_ended_counts_with_its_processor_time() -> None:
    with closing(UsageMeter()) as meter:
        subprocess.run([sys.executable, "-c", BURN], check=True)
        usage = meter.read()
    assert 0.5 <= usage.cpu_s < 5 and meter.wall_s >= 0.5


def test_a_child_counts_with_its_memory_while_it_lives_and_may_be_read(monkeypatch) -> None:
    """What else this process has started, servers of other tests, is none of the family here."""
    children = Mock(return_value=[])
    monkeypatch.setattr(psutil.Process, "children", children)
    alone = family_memory_bytes()
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        with closing(UsageMeter(look_every_s=0.05)) as meter:
            children.return_value = [psutil.Process(child.pid)]
            time.sleep(0.5)
            children.side_effect = psutil.AccessDenied(1)
            child.communicate(b"\n")
            assert alone + 200 * MIB <= meter.read().peak_memory_bytes < alone + 300 * MIB
    with closing(UsageMeter()) as meter:
        assert meter.read().peak_memory_bytes > 10 * MIB


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
def test_the_memory_limit_is_the_tightest_of_the_control_groups_above(tmp_path, limits, expected):
    (tmp_path / "groups" / "pods" / "one").mkdir(parents=True)
    for group, limit in limits.items():
        (tmp_path / "groups" / group / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "own").write_text("0::/pods/one\n")
    found = memory_limit_bytes(tmp_path / "groups", tmp_path / "own")
    assert found == (expected or psutil.virtual_memory().total)
