"""Commands as a person types them, each in a process forked from one that has the imports already.

Two seconds of each command are imports. The fork server of multiprocessing makes them once, and has
computed nothing: a forked process is as new as one that was started, and has its own environment,
folder, logging and output.
"""

import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts import mlflow_errors

_PRELOADED = (
    "mlflow.pyfunc",
    "pipelines.cli.main",
    "pipelines.log_check.measuring",
    "pipelines.overview.doctor",
    "pipelines.overview.status",
    "pipelines.preconditions.cycle",
    "pipelines.reproduction.rebuild",
    "pipelines.snapshot_view",
    "pipelines.stages.runner",
    "training.fitting.spec",
    "validation.data_gate.gate",
)
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Typed:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.out + self.err


def type_command(home: Path, *words: str) -> Typed:
    """Run `homefeed WORDS...` in a folder, which is also where its output is kept meanwhile.

    Of the settings it has only `home`, and an MLflow that does not answer, for which it waits no
    time. It has no terminal.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    streams = (home / "stdout", home / "stderr")
    process = context.Process(target=_type, args=(home, words, streams))
    process.start()
    process.join(_TIMEOUT_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"homefeed {' '.join(words)} did not end in {_TIMEOUT_S:g} s")
    out, err = (stream.read_text() for stream in streams)
    return Typed(process.exitcode, out, err)


def _type(home: Path, words: Sequence[str], streams: Sequence[Path]) -> None:
    for number, path in enumerate(streams, start=1):
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    for name in [name for name in os.environ if name.startswith("HOMEFEED_")]:
        del os.environ[name]
    os.environ |= {"HOMEFEED_HOME": str(home), "HOMEFEED_TRACKING_URI": "http://127.0.0.1:9"}
    os.chdir(home)
    mlflow_errors.WAITS_S = (0.0, 0.0)
    logging.getLogger().handlers.clear()  # as in a new process, in which `main` sets up its own
    warnings.resetwarnings()
    sys.argv = ["homefeed", *words]
    from pipelines.cli.main import main

    main()
