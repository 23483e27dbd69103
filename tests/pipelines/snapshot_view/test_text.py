"""Two snapshots side by side: what is equal is not mentioned, and what differs is."""

import pytest

from pipelines.contracts.snapshot_files import open_table
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot_view.text import compare, difference_lines
from pipelines.storage import local_path
from support.runs import make_run


def request_ids(snapshot, folder) -> set[str]:
    return {
        one
        for shard in snapshot.shards
        for one in open_table(folder, f"{shard.name}/requests.arrow")["request_id"].to_pylist()
    }


def test_the_same_snapshot_has_the_same_bytes_and_no_more_is_said(built) -> None:
    found = compare(built.newer, built.newer_dir, built.newer, built.newer_dir)
    assert found.one.snapshot.digest == found.other.snapshot.digest
    assert list(difference_lines(found))[1:] == ["both hold the same bytes"]


def test_of_two_weeks_the_shared_requests_are_counted(built) -> None:
    found = compare(built.older, built.older_dir, built.newer, built.newer_dir)
    older = request_ids(built.older, built.older_dir)
    newer = request_ids(built.newer, built.newer_dir)
    assert found.num_shared == len(older & newer) > 0
    said = "\n".join(difference_lines(found))
    assert f"{len(older - newer):,} only in the first" in said
    assert f"{len(newer - older):,} only in the second" in said
    assert "as of: 2017-02-23 00:00 UTC -> 2017-03-02 00:00 UTC" in said
    assert "embedding version" not in said, "it is the same"
    assert "training: examples: " in said and "%)" in said


def test_a_recipe_with_another_head_and_more_shards_is_told_apart(built) -> None:
    base = smoke()
    features = base.features.model_copy(update={"heads": base.features.heads[:1]})
    config = base.model_copy(
        update={
            "features": features,
            "snapshot": base.snapshot.model_copy(update={"num_shards": 3}),
        }
    )
    other = write_snapshot(make_run(built.folder, config))
    found = compare(built.newer, built.newer_dir, other, local_path(other.uri))
    said = "\n".join(difference_lines(found))
    assert found.num_shared is None and "unknown, because users are dealt out" in said
    assert "shards: 2 -> 3" in said
    assert "heads: repin, long_click, save -> repin" in said
    rate = next(line for line in said.splitlines() if "training: label rate of save" in line)
    assert rate.endswith("-> unknown")
    back = compare(other, local_path(other.uri), built.newer, built.newer_dir)
    assert any(
        line.startswith("training: label rate of save: unknown -> ")
        for line in difference_lines(back)
    )


@pytest.mark.parametrize("split", ["training", "holdout"])
def test_equal_numbers_are_left_out(built, split: str) -> None:
    said = list(
        difference_lines(compare(built.older, built.older_dir, built.newer, built.newer_dir))
    )
    assert any(line.startswith(f"{split}: ") for line in said)
    assert not any(line.startswith("pins without an embedding") for line in said)
