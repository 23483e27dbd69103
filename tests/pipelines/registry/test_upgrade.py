"""A workspace of schema version 1: it waits for `homefeed history upgrade`, and is not altered.

`workspace_of_version_1.tar.gz` was written by the tree of 29 November 2026, in two cycles on the
sample: its history, and of each cycle the manifests, the bundle's words and the evidence.
"""

import re
import tarfile
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.reasons import Reason
from pipelines.contracts.upgrades import from_version_1
from pipelines.cycles.reading import read_cycle
from pipelines.registry import evidence, history
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact
from support.commands import as_json, homefeed

NAME = "homefeed_ranker"
RUNS = ("2017-06-12--2f3c7f0c", "2017-06-26--7ee788aa")


@pytest.fixture
def workspace(home: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("workspace_of_version_1.tar.gz")) as kept:
        kept.extractall(home, filter="data")
    return home / "workspace"


def test_the_history_waits_for_the_command_which_alters_nothing_written(workspace: Path) -> None:
    where = (storage.to_uri(workspace), NAME)
    with pytest.raises(DataContractError, match="give `homefeed history upgrade`"):
        history.load(*where)
    assert homefeed("status").exit_code != 0
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    for _ in range(2):
        shown = as_json("history", "upgrade")
        assert shown == {
            "workspace_uri": where[0], "entries": 3, "verdicts": 2, "bundles": 2, "unread": []
        }  # fmt: skip
    assert {path: path.read_bytes() for path in before} == before
    known = history.load(*where)
    assert [each.kind for each in known.entries] == ["promotion", "promotion", "upgrade"]
    assert known.damaged == () and known.pending is None and known.recipes.accepted is not None
    assert known.recipes.accepted.digest and known.moves[0].recipe is not None
    assert known.recipes.accepted.parse().model_gate.seed == 11
    assert history.create(known, known.moves[0]).newest.number == 4
    history.mark_followed(known, known.moves[0], was_set_again=False)  # By the bytes on record.
    (workspace / f"history/{NAME}/00000002.json").write_text("{}")
    assert history.load(*where).damaged == (known.uri_of(2),)


def test_cycles_are_read_as_they_were_judged(workspace: Path) -> None:
    run_uris = [storage.to_uri(workspace / "runs" / name) for name in RUNS]
    first, second = (read_artifact(uri, "compare_with_champion", Judgement) for uri in run_uris)
    assert first.comparison.num_days == second.comparison.num_days == 7
    assert second.serving.processor_p99_ms is None
    said = "\n".join(map(str, second.verdict.reasons))
    assert re.search(r"p99 [\d.]+ ms\), \d+ MiB at peak", said) and "one-sided 95 %" in said
    found = read_cycle(run_uris[1], Settings())
    assert (found.state, found.promoted) == ("judged", f"{NAME} v2")
    pinned = evidence.pin(storage.to_uri(workspace), NAME, but="none")
    assert [cycle.run_id for cycle in evidence.read(pinned)] == list(RUNS)
    path = workspace / f"runs/{RUNS[1]}/resolve_run/manifest.json"
    path.write_text(path.read_text().replace('"num_resamples": 2000', '"num_resamples": 2001'))
    with pytest.raises(DataContractError, match="its seal does not fit"):
        read_artifact(run_uris[1], "resolve_run", ResolvedRun)


@pytest.mark.parametrize(
    ("code", "facts", "said"),
    [
        ("serving_latency", {"found": 340.2, "limit": 250.0}, "p99 is 340 ms, beyond the 250 ms"),
        ("tested_coverage", {"num_draws": 20, "covered": 19, "fewest": 17, "most": 20}, "19 inter"),
    ],
)
def test_a_reason_whose_facts_changed_says_what_it_said(code: str, facts: dict, said: str) -> None:
    reason = Reason.model_validate(from_version_1({"code": code, "facts": facts, "because": None}))
    assert said in str(reason)
