"""Two stacks on one bucket: two workspaces with one registry, or one workspace of two Airflows."""

import time
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import HomefeedError, RecordDisagreesError
from pipelines.contracts.run_layout import manifest_uri
from pipelines.preconditions.cycle import require_record
from pipelines.registry import history
from pipelines.stages.runner import run_stage
from support.holders import Holder
from support.record_world import NAME, record_world
from support.registered import NO_ANCHOR, challenger_of, judgement_of
from support.runs import make_run, save_artifact, save_run

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


def test_a_second_workspace_with_the_same_registry_begins_no_cycle_and_promotes_nothing(
    s3_uri: str, tmp_path: Path
) -> None:
    first, second = f"{s3_uri}/first", f"{s3_uri}/second"
    with record_world(tmp_path / "world", first) as world:
        with pytest.raises(RecordDisagreesError, match=f"is kept by workspace {first}"):
            require_record(world.registry, second, NAME)  # type: ignore[arg-type]
        assert storage.list_names(second) == []
        model = world.models["2"]
        places = {"champion": world.models["1"], "run_id": "theirs", "workspace_uri": second}
        run = save_run(make_run(tmp_path, as_of=model.as_of, **places))
        save_artifact(run, "train_challenger", challenger_of(model))
        save_artifact(run, "train_anchor", NO_ANCHOR)
        save_artifact(run, "compare_with_champion", judgement_of(run, model))
        with pytest.raises(HomefeedError, match=f"workspace {first}") as caught:
            run_stage("promote_challenger", run.run_uri)
        assert not caught.value.is_retryable and world.registry.alias == "1"
        assert not storage.exists(manifest_uri(run.run_uri, "promote_challenger"))
        assert not history.read(second, NAME)


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
        served = [entry.model.version for _, entry in state.history.entries]
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
        assert len(state.history.placed) == (2 if act == "promote" else 3)
