"""A training in a process of its own: to be killed, told to stop, or one of two machines."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.serving import wait_until
from training.fitting.spec import NodeAddress, TrainingSpec

_CODE = """
import sys
from pathlib import Path
from pipelines.contracts.errors import HomefeedError
from training.fitting.spec import NodeAddress, TrainingSpec
from training.launch.launcher import train
spec = TrainingSpec.from_record(Path(sys.argv[1]).read_bytes())
node = NodeAddress(rank=int(sys.argv[2]), rendezvous=sys.argv[3]) if sys.argv[3] else None
try: print(train(spec, node).model_dump_json())
except HomefeedError as error: sys.exit(f"{type(error).__name__}: {error}")
"""


def start_training(
    spec: TrainingSpec, folder: Path, node: NodeAddress | None = None
) -> "subprocess.Popen[str]":
    """Start a launcher; it prints the result, and its node-N.log ends with an error's class."""
    node = node or NodeAddress(rank=0, rendezvous="")
    given = folder / f"given-{node.rank}.json"
    given.write_bytes(spec.to_record())
    command = [sys.executable, "-c", _CODE, str(given), str(node.rank), node.rendezvous]
    with (folder / f"node-{node.rank}.log").open("w") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)


def signal_when(is_time: Callable[[], bool], process: "subprocess.Popen[str]", number: int) -> None:
    """Signal a process as soon as it is time, before which it must not end."""
    wait_until(lambda: is_time() or process.poll() is not None, 120)
    assert process.poll() is None, "the training ended before it could be signalled"
    process.send_signal(number)


def ended(process: "subprocess.Popen[str]") -> str:
    """Wait for a launcher's end and return what it printed."""
    output, _ = process.communicate(timeout=180)
    return output.strip()
