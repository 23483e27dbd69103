"""`make try-stack`: bring the compose stack up, run two cycles in it, kill containers, measure.

    make try-stack                            two cycles, pictures, one kill of each container
    TRY_STACK=--kills make try-stack          without kills
    TRY_STACK="--kills worker s3" make try-stack      kills of these alone
    TRY_STACK="--all-kills" make try-stack    every container in every stage (hours)

It needs built images (`make images`), writes the rows stack_up_s, stack_cycles_vs_local and
image_sizes_mb, and prints a line for each kill: container, stage, outcome. The stack is taken down
at the end, with its volumes, unless `--keep` is given.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).parents[1:3]]

import record  # noqa: E402
import render  # noqa: E402

from pipelines import storage  # noqa: E402
from pipelines.contracts.artifacts import STAGES  # noqa: E402
from pipelines.contracts.cycle import CycleFacts  # noqa: E402
from pipelines.cycles.reading import find_cycle  # noqa: E402
from pipelines.local.retrain import Cycle  # noqa: E402
from pipelines.settings import Settings  # noqa: E402
from pipelines.stages.runner import read_record  # noqa: E402
from support.stack import (  # noqa: E402
    BUCKET,
    SERVICES,
    Stack,
    StackError,
    all_secrets,
    finish,
    use_store,
)

DAYS = ("2017-06-12", "2017-06-26")
RECIPE = "completejourney"
WORKSPACE = f"s3://{BUCKET}/workspace"
SEED = 7


@dataclass(frozen=True)
class Kill:
    """What to kill, and while which stage runs."""

    service: str
    stage: str


def main() -> None:
    """Try the stack as the options say."""
    parser = argparse.ArgumentParser(description="Try the stack of docker/compose.yaml.")
    parser.add_argument("--kills", nargs="*", choices=SERVICES, default=SERVICES, help="of which")
    parser.add_argument("--all-kills", action="store_true", help="every container in every stage")
    parser.add_argument("--no-local", action="store_true", help="do not time `make retrain`")
    parser.add_argument("--keep", action="store_true", help="leave the stack up at the end")
    parser.add_argument("--pictures", type=Path, default=None, help="folder for pictures")
    wanted = parser.parse_args()
    stack = Stack()
    use_store()
    try:
        sizes = stack.sizes_mb()
        up_s = stack.up()
        say(f"all services are healthy after {up_s:.0f} s")
        cycles_s = run_cycles(stack)
        rows = [_sizes_row(sizes), _up_row(up_s)]
        if not wanted.no_local:
            rows.append(_cycles_row(cycles_s, local_s()))
        if wanted.pictures:
            take_pictures(wanted.pictures)
        record.save(rows)
        render.PAGE.write_text(render.page(record.load()))
        lost = try_kills(stack, kills(wanted.kills, is_all=wanted.all_kills))
        search_for_secrets(stack)
    finally:
        if not wanted.keep:
            stack.down()
    if lost:
        raise SystemExit(f"{lost} kills lost something")


def run_cycles(stack: Stack) -> float:
    """Write the event log, run two cycles, and return the seconds of both with it."""
    started = time.monotonic()
    stack.ingest()
    say(f"the event log is in the bucket after {time.monotonic() - started:.0f} s")
    api = stack.api()
    api.wait_for_dag()
    api.set_paused(False)
    for cycle in (Cycle(day, RECIPE) for day in DAYS):
        if api.find_run(cycle.run_id) is None:
            api.trigger(cycle.run_id, cycle.conf)
        state = finish(api, cycle.run_id)
        decision = outcome_of(cycle.run_id)
        say(f"{cycle.run_id}: {state}, {decision}, {time.monotonic() - started:.0f} s")
        if (state, decision) != ("success", "PROMOTE"):
            raise StackError(f"{cycle.run_id} ended with {state}, {decision}; expected PROMOTE")
    for folder in ("event_log", "workspace", "mlflow"):
        if not storage.list_names(f"s3://{BUCKET}/{folder}"):
            raise StackError(f"nothing is in s3://{BUCKET}/{folder}")
    return time.monotonic() - started


def outcome_of(run_id: str) -> str:
    """Return the verdict of a run that has ended."""
    found = find_cycle(WORKSPACE, run_id, Settings())
    return found.outcome.decision if found and found.outcome else "no verdict"


def kills(services: Sequence[str], *, is_all: bool) -> list[Kill]:
    """Return what to kill: each service in every stage, or once in a stage that a seed draws."""
    if is_all:
        return [Kill(service, stage) for stage in STAGES for service in services]
    draw = random.Random(SEED)
    stages = [stage for stage in STAGES if stage != "train_anchor"]  # It ends within a second.
    drawn = [Kill(service, draw.choice(stages)) for service in SERVICES]
    return [kill for kill in drawn if kill.service in services]


def try_kills(stack: Stack, wanted: list[Kill]) -> int:
    """Kill each in a cycle of its own, print what came of it, and return how many were lost."""
    undisturbed = find_cycle(WORKSPACE, Cycle(DAYS[1], RECIPE).run_id, Settings())
    assert undisturbed is not None, "the second cycle has ended"
    lost = 0
    for number, kill in enumerate(wanted):
        started = time.monotonic()
        outcome = _try_kill(
            stack, kill, f"kill__{number}__{kill.service}__{kill.stage}", undisturbed
        )
        lost += not outcome.startswith("survived")
        say(f"{kill.service:14} {kill.stage:22} {outcome}, {time.monotonic() - started:.0f} s")
    return lost


def _try_kill(stack: Stack, kill: Kill, run_id: str, undisturbed: CycleFacts) -> str:
    api = stack.api()
    api.trigger(run_id, Cycle(DAYS[1], RECIPE).conf | {"promote": False})
    stage_was = _wait_for_stage(stack, run_id, kill.stage)
    stack.wait_until_restarted(kill.service, stack.kill(kill.service))
    state, cleared = finish(api, run_id), 0
    if state == "failed":
        stack.wait_until_healthy(SERVICES)
        api, cleared = stack.api(), 1
        api.clear_failed(run_id)
        time.sleep(5)
        state = finish(api, run_id)
    found = find_cycle(WORKSPACE, run_id, Settings())
    if state != "success" or found is None:
        return f"LOST: the run ended with {state} after {cleared} Clear"
    for stage in ("build_snapshot", "train_challenger"):
        if _digests(found, stage) != _digests(undisturbed, stage):
            return f"LOST: {stage} is not what it is undisturbed"
    return f"survived with {cleared} Clear ({stage_was} when it was killed)"


def _digests(cycle: CycleFacts, stage: str) -> list[str]:
    artifact = read_record(cycle.run_uri, stage).artifact
    return sorted(f"{key}={value}" for key, value in artifact.items() if key.endswith("digest"))


def _wait_for_stage(stack: Stack, run_id: str, stage: str, timeout_s: float = 900.0) -> str:
    """Wait until a stage has begun, and return its state: a short one may have ended by then."""
    api, deadline = stack.api(), time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        states = {task["task_id"]: task["state"] for task in api.tasks(run_id)}
        if states.get(stage) in ("running", "success"):
            return str(states[stage])
        time.sleep(0.1)
    raise StackError(f"{stage} of {run_id} has not begun after {timeout_s:.0f} s")


def local_s() -> float:
    """Return the seconds of `make retrain` in a new home on this machine, start to end."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="homefeed-local-") as home:
        command = [sys.executable, "-m", "pipelines.cli", "local", "retrain"]
        from_here = {name: value for name, value in os.environ.items() if name[:4] != "AWS_"}
        subprocess.run(
            command,
            env=from_here | {"HOMEFEED_HOME": home},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return time.monotonic() - started


def search_for_secrets(stack: Stack) -> None:
    """Look for every secret in all that may be seen of the services."""
    told, secrets = stack.told(), all_secrets()
    if empty := [name for name, words in secrets.items() if not words]:
        raise StackError(f"no secret was found in {empty}, and so none could be looked for")
    found = [name for name, words in secrets.items() if any(word in told for word in words)]
    if found:
        raise StackError(f"these secrets stand in a log, a setting or an argument: {found}")
    say(f"no word of {len(secrets)} files of secrets stands in a log, a setting or an argument")


def take_pictures(folder: Path) -> None:
    """Take a picture of each page that the stack serves."""
    from support.stack_pictures import take

    folder.mkdir(parents=True, exist_ok=True)
    for path in take(folder):
        say(f"picture {path}")


def _sizes_row(sizes_mb: dict[str, float]) -> record.Row:
    each = ", ".join(f"{name} {size:,.0f}" for name, size in sizes_mb.items())
    return record.row(
        "image_sizes_mb",
        sizes_mb["trainer"],
        "MB",
        spread="none: a size",
        rows=len(sizes_mb),
        note=f"the trainer's; unpacked, above their base image: {each}",
    )


def _up_row(up_s: float) -> record.Row:
    return record.row(
        "stack_up_s",
        up_s,
        "s",
        spread="one start, volumes empty",
        rows=1,
        note=f"from `compose up` until {len(SERVICES)} health checks were green",
    )


def _cycles_row(stack_s: float, retrain_s: float) -> record.Row:
    return record.row(
        "stack_cycles_vs_local",
        stack_s,
        "s",
        ratio=stack_s / retrain_s,
        peer=f"`make retrain` on the same machine, {retrain_s:,.0f} s",
        spread="one run of each",
        rows=2,
        seed="17",
        note="event log and two cycles; the stack's own start is in stack_up_s, the peer's in it",
    )


def say(line: str) -> None:
    """Print a line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
