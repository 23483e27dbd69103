"""Processes that are timed and looked at, and how a ratio's spread is told."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil


@dataclass(frozen=True)
class Ran:
    """What a process took, with its children."""

    seconds: float
    cpu_s: float
    peak_mib: float
    """Memory at most that the kernel cannot take back at need; 0 where nobody looked."""
    output: str

    @property
    def told(self) -> Any:
        """The JSON value of the last line that it printed."""
        return json.loads(self.output.splitlines()[-1])


def call(
    module: str,
    function: str,
    *words: str,
    environment: Mapping[str, str] | None = None,
    sees_memory: bool = False,
) -> Ran:
    """Call a function of a benchmark in a process of its own; what it returns is `told`."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("run.py")), "--call"]
    return run_process([*command, module, function, *words], environment, sees_memory=sees_memory)


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    sees_memory: bool = True,
) -> Ran:
    """Run a command to its end; RuntimeError if it fails.

    Args:
        command: The words of it.
        environment: Variables besides those of this process.
        sees_memory: Whether its memory is looked at: the kernel walks through all pages of the
            process to answer, on a core that the process could use.
    """
    before, started, peak = os.times(), time.monotonic(), 0
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})
    )
    with process:
        while process.poll() is None:
            if sees_memory:
                peak = max(peak, _anonymous_bytes(psutil.Process(process.pid)))
            time.sleep(0.05)
        output = process.stdout.read() if process.stdout else ""
    seconds, after = time.monotonic() - started, os.times()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    cpu_s = after.children_user + after.children_system
    cpu_s -= before.children_user + before.children_system
    return Ran(seconds, cpu_s, peak / 2**20, output)


def _anonymous_bytes(process: psutil.Process) -> int:
    """Return the memory of a process and its children that the kernel cannot take back at need."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            lines = Path(f"/proc/{each.pid}/status").read_text().splitlines()
        except OSError:
            continue  # it has just ended
        found = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
        total += sum(int(found[name].split()[0]) << 10 for name in ("RssAnon", "RssShmem") if found)
    return total


def in_turns(values: Sequence[float] | np.ndarray) -> str:
    """Return from where to where the ratios of several turns reach."""
    return f"ratio {min(values):.2f} to {max(values):.2f} over {len(values)} turns"
