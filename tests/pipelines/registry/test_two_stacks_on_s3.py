"""Two Airflows with one workspace in a bucket: at once, and one after the other was killed."""

import time
from pathlib import Path

import pytest

from support.holders import Holder
from support.record_world import record_world

PROMOTE = """
from pathlib import Path
from pipelines.registry import registry, tracking
from pipelines.stages.runner import run_stage
from support.fake_registry import FakeRegistry
from training.bundle import files as bundle_files
client = FakeRegistry(Path({registry!r}))
tracking.connect = lambda uri: client
registry.download_bundle = lambda client, model, folder: folder
bundle_files.load_bundle = lambda folder: None
print("ready", flush=True)
sys.stdin.readline()
try:
    run_stage("promote_challenger", {run_uri!r})
    print("promoted", flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""
KILLED = """
from pathlib import Path
from pipelines.registry import history
from support.record_world import record_world

def decided(*_):
    print("decided", flush=True)
    sys.stdin.readline()

with record_world(Path({folder!r}), {workspace_uri!r}) as world:
    history.begin_attempt = decided
    world.{act}(*{arguments})
"""
LONGEST_S = 10.0


def test_of_two_airflows_that_promote_at_once_one_does(s3_uri: str, tmp_path: Path) -> None:
    """Both have resolved a cycle of one workspace against the same champion."""
    with record_world(tmp_path / "world", s3_uri) as world:
        registry = str(tmp_path / "world" / "registry.json")
        scripts = [
            PROMOTE.format(registry=registry, run_uri=world.runs[number].run_uri)
            for number in ("2", "3")
        ]
        with Holder(scripts[0]) as one, Holder(scripts[1]) as two:
            assert (one.says(), two.says()) == ("ready", "ready")
            for each in (one, two):
                each.tell()
            said = sorted((one.says(), two.says()), key=lambda line: line == "promoted")
        assert said[1] == "promoted", said
        assert said[0].startswith(("PromotionRefusedError", "RunInProgressError")), said
        state = world.look()
        assert state.disagreement() == "" and state.history.pending is None
        served = [move.model.version for move in state.history.moves]
        assert served == ["1", world.registry.alias]


@pytest.mark.parametrize("act", ["promote", "rollback"])
def test_a_move_that_was_killed_is_given_again_and_waits_for_nobody(
    s3_uri: str, tmp_path: Path, act: str
) -> None:
    arguments = ("2",) if act == "promote" else ()
    with record_world(tmp_path / "world", s3_uri) as world:
        if act == "rollback":
            world.promote("2")
        where = {"folder": str(tmp_path / "world"), "workspace_uri": s3_uri}
        with Holder(KILLED.format(**where, act=act, arguments=arguments)) as killed:
            assert killed.says() == "decided"
            killed.kill()
        assert world.look().history.pending is not None
        began = time.monotonic()
        getattr(world, act)(*arguments)
        assert time.monotonic() - began < LONGEST_S
        state = world.look()
        assert state.serves == state.recorded == ("2" if act == "promote" else "1")
        assert len(state.history.entries) == (2 if act == "promote" else 3)
