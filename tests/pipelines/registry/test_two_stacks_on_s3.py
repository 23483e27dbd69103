"""Two stacks on one bucket: two workspaces with one registry, or one workspace of two Airflows."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import HomefeedError, RecordDisagreesError
from pipelines.contracts.run_layout import manifest_uri
from pipelines.places import store_lease
from pipelines.preconditions.record import require_record
from pipelines.registry import anchor, history
from pipelines.stages.runner import run_stage
from support.holders import TTL_S, Holder
from support.record_world import NAME, NOW, record_world
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
ROLL_BACK = """
from pathlib import Path
from support.record_world import record_world
looked = storage.translated_errors

def pause(uri, doing):
    if "/anchors/" in uri and doing == "writing":
        print("has looked at its lease", flush=True)
        sys.stdin.readline()
    return looked(uri, doing)

with record_world(Path({folder!r}), {workspace_uri!r}) as world:
    storage.translated_errors = pause
    try:
        world.rollback()
        print("rolled back", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""
"""Stand still in the write that says which recipe a rollback holds."""


@pytest.fixture(autouse=True)
def short_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lease, "TTL_S", TTL_S)


def test_a_second_workspace_with_the_same_registry_begins_no_cycle(
    s3_uri: str, tmp_path: Path
) -> None:
    first, second = f"{s3_uri}/first", f"{s3_uri}/second"
    with record_world(tmp_path / "world", first) as world:
        with pytest.raises(RecordDisagreesError, match=f"is kept by workspace {first}"):
            require_record(world.registry, second, NAME, NOW)  # type: ignore[arg-type]
        assert storage.list_names(second) == []


def test_a_second_workspace_with_the_same_registry_promotes_nothing(
    s3_uri: str, tmp_path: Path
) -> None:
    first, second = f"{s3_uri}/first", f"{s3_uri}/second"
    with record_world(tmp_path / "world", first) as world:
        model = world.models["2"]
        run = make_run(
            tmp_path,
            as_of=model.as_of,
            champion=world.models["1"],
            run_id="theirs",
            workspace_uri=second,
        )
        save_run(run)
        save_artifact(run, "train_challenger", challenger_of(model))
        save_artifact(run, "train_anchor", NO_ANCHOR)
        save_artifact(run, "compare_with_champion", judgement_of(run, model))
        with pytest.raises(HomefeedError, match=f"workspace {first}") as caught:
            run_stage("promote_challenger", run.run_uri)
        assert not caught.value.is_retryable
        assert world.registry.alias == "1"
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


def test_a_rollback_that_was_given_up_while_its_process_was_stopped_holds_no_recipe(
    s3_uri: str, tmp_path: Path
) -> None:
    """The process wakes up in the request that it had begun, and the request arrives."""
    with record_world(tmp_path / "world", s3_uri) as world:
        world.promote("2")
        folder = str(tmp_path / "world")
        with Holder(ROLL_BACK.format(folder=folder, workspace_uri=s3_uri)) as stopped:
            assert stopped.says() == "has looked at its lease"
            stopped.stop()
            world.resolve()
            stopped.wake()
            stopped.tell()
            assert stopped.says().startswith("RunInProgressError")
        state = world.look()
        assert state.serves == "2" and state.history.pending is None
        assert [entry.kind for entry in anchor.read(s3_uri, NAME)] == ["rollback"], "it arrived"
        assert anchor.present(s3_uri, NAME) is None
