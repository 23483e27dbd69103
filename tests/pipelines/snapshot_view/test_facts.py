"""What is told of a snapshot is what its rows hold, counted the slow way; and how two differ."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.contracts.errors import SnapshotDamagedError
from pipelines.contracts.snapshot_files import open_table
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot_view.facts import (
    LENGTH_EDGES,
    SnapshotFacts,
    WindowFacts,
    compare,
    difference_lines,
    figures_of,
    lines_of,
    read_facts,
)
from pipelines.storage import local_path
from support.runs import make_run


@pytest.fixture(scope="module")
def facts(built) -> SnapshotFacts:
    return read_facts(built.newer, built.newer_dir)


def rows_of(snapshot, folder: Path) -> pd.DataFrame:
    """One row for each example, with the columns of its request."""
    parts = []
    for shard in snapshot.shards:
        requests, examples = (
            open_table(folder, f"{shard.name}/{kind}.arrow").to_pandas()
            for kind in ("requests", "examples")
        )
        parts.append(examples.join(requests.loc[requests.index.repeat(requests["num_examples"])]
                                   .reset_index(drop=True)))  # fmt: skip
    return pd.concat(parts)


@pytest.mark.parametrize("split", [0, 1], ids=["training", "holdout"])
def test_a_window_s_counts_are_those_of_its_rows(built, facts, split: int) -> None:
    rows = rows_of(built.newer, built.newer_dir)
    window, own = facts.windows[split], rows[rows["split"] == split]
    heads = facts.snapshot.features.head_names
    assert window.whole.examples == len(own) > 1000
    assert window.whole.requests == own["request_id"].nunique()
    assert window.users == own["user_id"].nunique()
    assert window.whole.positives == {head: own[f"label_{head}"].sum() for head in heads}
    days = own.groupby(pd.to_datetime(own["impressed_at"], unit="ms").dt.date)
    assert list(window.by_day) == sorted(days.groups)
    for day, of_day in days:
        counts = window.by_day[day]
        assert counts.requests == of_day["request_id"].nunique()
        assert counts.examples == len(of_day)
        assert counts.rate("repin") == pytest.approx(of_day["label_repin"].mean())
    requests = own.drop_duplicates("request_id")
    lengths = requests["timeline_end"] - requests["timeline_start"]
    assert list(window.lengths) == list(np.histogram(lengths, [*LENGTH_EDGES, np.inf])[0])


def test_what_is_told_adds_up_to_the_manifest_and_has_every_day(facts: SnapshotFacts) -> None:
    whole = {figure.name: figure.value for figure in figures_of(facts)}
    snapshot = facts.snapshot
    for kind, total in (("requests", snapshot.num_requests), ("examples", snapshot.num_examples)):
        assert whole[f"training: {kind}"] + whole[f"holdout: {kind}"] == total
    of_kinds = sum(value for name, value in whole.items() if name.startswith("bytes of "))
    assert whole["bytes"] == sum(file.num_bytes for file in snapshot.files) == of_kinds
    assert sum(line.startswith("2017-") for line in lines_of(facts)) == 14 + 7


def test_a_rate_of_nothing_is_unknown_and_no_zero(facts: SnapshotFacts) -> None:
    snapshot = facts.snapshot.model_copy(update={"shards": ()})
    nothing = SnapshotFacts(snapshot, facts.training, WindowFacts("holdout", snapshot.holdout))
    shown, window = list(lines_of(nothing)), snapshot.holdout
    for line in (
        "holdout: requests: 0",
        "holdout: requests of users without an action: unknown",
        "bytes for each example: unknown",
        f"holdout: {window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}",
    ):
        assert line in shown


def test_a_file_that_is_gone_is_named(built, tmp_path: Path) -> None:
    with pytest.raises(SnapshotDamagedError, match="shard-00000/requests.arrow is missing"):
        read_facts(built.newer, tmp_path)


def test_of_two_weeks_the_shared_requests_are_counted_and_equal_numbers_left_out(built) -> None:
    same = compare(built.newer, built.newer_dir, built.newer, built.newer_dir)
    assert list(difference_lines(same))[1:] == ["both hold the same bytes"]
    found = compare(built.older, built.older_dir, built.newer, built.newer_dir)
    older = set(rows_of(built.older, built.older_dir)["request_id"])
    newer = set(rows_of(built.newer, built.newer_dir)["request_id"])
    assert found.num_shared == len(older & newer) > 0
    said = "\n".join(difference_lines(found))
    assert f"{len(older - newer):,} only in the first" in said
    assert f"{len(newer - older):,} only in the second" in said
    assert "as of: 2017-02-23 00:00 UTC -> 2017-03-02 00:00 UTC" in said
    assert re.search(r"training: examples: .*%\)", said) and "holdout: " in said
    assert "embedding version" not in said and "pins without an embedding" not in said


def test_a_recipe_with_another_head_and_more_shards_is_told_apart(built) -> None:
    base = smoke()
    changed = {
        "features": base.features.model_copy(update={"heads": base.features.heads[:1]}),
        "snapshot": base.snapshot.model_copy(update={"num_shards": 3}),
    }
    other = write_snapshot(make_run(built.folder, base.model_copy(update=changed)))
    sides = (built.newer, built.newer_dir), (other, local_path(other.uri))
    said = list(difference_lines(compare(*sides[0], *sides[1])))
    assert any("unknown, because users are dealt out" in line for line in said)
    assert "shards: 2 -> 3" in said and "heads: repin, long_click, save -> repin" in said
    assert any(re.match("training: label rate of save: .* -> unknown", line) for line in said)
    back = "\n".join(difference_lines(compare(*sides[1], *sides[0])))
    assert "training: label rate of save: unknown -> " in back
