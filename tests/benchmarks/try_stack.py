"""`make try-stack`: bring the compose stack up, run two cycles in it, kill containers, measure.

    make try-stack                                  two cycles, and one kill of each container
    TRY_STACK=--kills make try-stack                without kills
    TRY_STACK="--kills worker s3" make try-stack    kills of these alone

It needs built images (`make images`), writes the row stack_up_s, and prints a line for each kill:
container, stage, outcome. A cycle in which a container was killed must make the snapshot, the
weights and the verdict of one that nothing disturbed. The stack is taken down at the end, with its
volumes, unless `--keep` is given.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(folder) for folder in Path(__file__).parents[1:3]]

import record  # noqa: E402
import render  # noqa: E402
from stack import (  # noqa: E402
    BUCKET,
    SERVICES,
    Stack,
    StackError,
    all_secrets,
    finish,
    use_store,
)

from pipelines import storage  # noqa: E402
from pipelines.contracts.artifacts import STAGES  # noqa: E402
from pipelines.cycles.reading import find_cycle  # noqa: E402
from pipelines.local.retrain import run_id_of  # noqa: E402
from pipelines.settings import Settings  # noqa: E402
from support.deployments import facts_of  # noqa: E402
from support.serving import wait_until  # noqa: E402

DAYS = ("2017-06-12", "2017-06-26")
RECIPE = "completejourney"
ASKED = {"recipe": RECIPE, "devices": 1}
WORKSPACE = f"s3://{BUCKET}/workspace"
SEED = 7


def main() -> None:
    """Try the stack as the options say."""
    parser = argparse.ArgumentParser(description="Try the stack of docker/compose.yaml.")
    parser.add_argument("--kills", nargs="*", choices=SERVICES, default=SERVICES, help="of which")
    parser.add_argument("--keep", action="store_true", help="leave the stack up at the end")
    wanted = parser.parse_args()
    stack = Stack()
    use_store()
    try:
        up_s = stack.up()
        say(f"all services are healthy after {up_s:.0f} s")
        run_cycles(stack)
        note = f"from `compose up` until {len(SERVICES)} health checks were green"
        spread = "one start, volumes empty"
        record.save([record.row("stack_up_s", up_s, "s", spread=spread, rows=1, note=note)])
        render.PAGE.write_text(render.page(record.load()))
        lost = try_kills(stack, wanted.kills)
        search_for_secrets(stack)
    finally:
        if not wanted.keep:
            stack.down()
    if lost:
        raise SystemExit(f"{lost} kills lost something")


def run_cycles(stack: Stack) -> None:
    """Write the event log, and run two cycles, which both promote."""
    started = time.monotonic()
    stack.ingest()
    say(f"the event log is in the bucket after {time.monotonic() - started:.0f} s")
    api = stack.api()
    api.unpause()
    for day in DAYS:
        run_id = run_id_of(RECIPE, day)
        if api.find_run(run_id) is None:
            api.trigger(run_id, ASKED | {"as_of": day, "promote": True})
        state = finish(api, run_id)
        decision = outcome_of(run_id)
        say(f"{run_id}: {state}, {decision}, {time.monotonic() - started:.0f} s")
        if (state, decision) != ("success", "PROMOTE"):
            raise StackError(f"{run_id} ended with {state}, {decision}; expected PROMOTE")
    for folder in ("event_log", "workspace", "mlflow"):
        if not storage.list_names(f"s3://{BUCKET}/{folder}"):
            raise StackError(f"nothing is in s3://{BUCKET}/{folder}")


def outcome_of(run_id: str) -> str:
    """Return the verdict of a run that has ended."""
    found = find_cycle(WORKSPACE, run_id, Settings())
    return found.outcome.decision if found and found.outcome else "no verdict"


def try_kills(stack: Stack, services: Sequence[str]) -> int:
    """Kill each service, in a stage that a seed draws; return in how many cycles that was seen."""
    # The cycles before have promoted; one more is judged against the champion that the killed ones
    # meet too.
    api, run_id = stack.api(), "kill__of_nothing"
    api.trigger(run_id, ASKED | {"as_of": DAYS[1], "promote": False})
    if (state := finish(api, run_id)) != "success":
        raise StackError(f"{run_id} ended with {state}, and nothing was killed")
    undisturbed = made_by(run_id)
    draw, lost = random.Random(SEED), 0
    stages = [stage for stage in STAGES if stage != "train_anchor"]  # It ends within a second.
    for number, (service, stage) in enumerate((each, draw.choice(stages)) for each in SERVICES):
        if service in services:
            started, run_id = time.monotonic(), f"kill__{number}__{service}__{stage}"
            outcome = _try_kill(stack, service, stage, run_id, undisturbed)
            lost += not outcome.startswith("survived")
            say(f"{service:14} {stage:22} {outcome}, {time.monotonic() - started:.0f} s")
    return lost


def _try_kill(
    stack: Stack, service: str, stage: str, run_id: str, undisturbed: dict[str, Any]
) -> str:
    api = stack.api()
    api.trigger(run_id, ASKED | {"as_of": DAYS[1], "promote": False})
    stage_was = _wait_for_stage(stack, run_id, stage)
    stack.wait_until_restarted(service, stack.kill(service))
    state, cleared = finish(api, run_id), 0
    if state == "failed":
        stack.wait_until_healthy(SERVICES)
        api, cleared = stack.api(), 1
        api.clear_failed(run_id)
        time.sleep(5)
        state = finish(api, run_id)
    if state != "success":
        return f"LOST: the run ended with {state} after {cleared} Clear"
    made = made_by(run_id)
    if unlike := [name for name in undisturbed if made[name] != undisturbed[name]]:
        return f"LOST: {unlike} are not what they are undisturbed"
    return f"survived with {cleared} Clear ({stage_was} when it was killed)"


def made_by(run_id: str) -> dict[str, Any]:
    """Return what a cycle has made and found; all of them meet the same champion."""
    found = find_cycle(WORKSPACE, run_id, Settings())
    assert found is not None, f"{run_id} has left nothing"
    facts = facts_of(found.run_uri)
    assert facts["bundle"], f"{run_id} names no file of its bundle"
    return facts


def _wait_for_stage(stack: Stack, run_id: str, stage: str) -> str:
    """Wait until a stage has begun, and return its state: a short one may have ended by then."""
    api, states = stack.api(), dict[str, str]()

    def has_begun() -> bool:
        states.update({task["task_id"]: task["state"] for task in api.tasks(run_id)})
        return states.get(stage) in ("running", "success")

    wait_until(has_begun, timeout_s=900.0)
    return states[stage]


def search_for_secrets(stack: Stack) -> None:
    """Look for every secret in all that may be seen of the services."""
    told, secrets = stack.told(), all_secrets()
    if empty := [name for name, words in secrets.items() if not words]:
        raise StackError(f"no secret was found in {empty}, and so none could be looked for")
    found = [name for name, words in secrets.items() if any(word in told for word in words)]
    if found:
        raise StackError(f"these secrets stand in a log, a setting or an argument: {found}")
    say(f"no word of {len(secrets)} files of secrets stands in a log, a setting or an argument")


def say(line: str) -> None:
    """Print a line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
