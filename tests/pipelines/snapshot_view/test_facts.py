"""What is told of a snapshot is what its rows hold, counted the slow way."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.contracts.errors import SnapshotDamagedError
from pipelines.contracts.snapshot_files import open_table
from pipelines.snapshot_view.facts import (
    LENGTH_EDGES,
    LENGTH_NAMES,
    SnapshotFacts,
    WindowFacts,
    figures_of,
    read_facts,
)
from pipelines.snapshot_view.showing import lines_of, render


@pytest.fixture(scope="module")
def facts(built) -> SnapshotFacts:
    return read_facts(built.newer, built.newer_dir)


@pytest.fixture(scope="module")
def rows(built) -> pd.DataFrame:
    """One row for each example, with the columns of its request."""
    parts = []
    for shard in built.newer.shards:
        requests = open_table(built.newer_dir, f"{shard.name}/requests.arrow").to_pandas()
        examples = open_table(built.newer_dir, f"{shard.name}/examples.arrow").to_pandas()
        for request in requests.itertuples(index=False):
            first = request.first_example
            own = examples.iloc[first : first + request.num_examples]
            parts.append(own.assign(**request._asdict()))
    found = pd.concat(parts)
    found["day"] = pd.to_datetime(found["impressed_at"], unit="ms").dt.date
    found["length"] = found["timeline_end"] - found["timeline_start"]
    return found


@pytest.mark.parametrize("split", [0, 1], ids=["training", "holdout"])
def test_a_window_s_counts_are_those_of_its_rows(facts, rows, split: int) -> None:
    window, own = facts.windows[split], rows[rows["split"] == split]
    heads = facts.snapshot.features.head_names
    assert window.whole.examples == len(own) > 1000
    assert window.whole.requests == own["request_id"].nunique()
    assert window.users == own["user_id"].nunique()
    assert window.whole.positives == {head: own[f"label_{head}"].sum() for head in heads}
    assert list(window.by_day) == sorted(own["day"].unique())
    for day, of_day in own.groupby("day"):
        counts = window.by_day[day]
        assert counts.requests == of_day["request_id"].nunique()
        assert counts.examples == len(of_day)
        assert counts.positives["repin"] == of_day["label_repin"].sum()
        assert counts.rate("repin") == pytest.approx(of_day["label_repin"].mean())
    lengths = own.groupby("request_id")["length"].first()
    assert list(window.lengths) == list(np.histogram(lengths, [*LENGTH_EDGES, np.inf])[0])


def test_classes_of_lengths_are_named_by_their_edges() -> None:
    firsts = [int(name.split()[0]) for name in LENGTH_NAMES]
    lasts = [int(name.split()[-1]) for name in LENGTH_NAMES[:-1]]
    assert firsts == LENGTH_EDGES.tolist() and lasts == (LENGTH_EDGES[1:] - 1).tolist()


def test_what_is_told_adds_up_to_the_manifest(facts: SnapshotFacts) -> None:
    whole = {figure.name: figure.value for figure in figures_of(facts)}
    snapshot = facts.snapshot
    assert whole["training: requests"] + whole["holdout: requests"] == snapshot.num_requests
    assert whole["training: examples"] + whole["holdout: examples"] == snapshot.num_examples
    of_kinds = sum(value for name, value in whole.items() if name.startswith("bytes of "))
    assert whole["bytes"] == sum(file.num_bytes for file in snapshot.files) == of_kinds


def test_a_rate_of_nothing_is_unknown_and_no_zero(facts: SnapshotFacts) -> None:
    snapshot = facts.snapshot.model_copy(update={"shards": ()})
    nothing = SnapshotFacts(snapshot, facts.training, WindowFacts("holdout", snapshot.holdout))
    shown = {figure.name: figure.text for figure in figures_of(nothing)}
    assert shown["holdout: requests"] == "0"
    assert shown["holdout: requests of users without an action"] == "unknown"
    assert shown["bytes for each example"] == "unknown"
    window = snapshot.holdout
    assert f"holdout: {window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}" in lines_of(nothing)


def test_every_day_and_every_class_of_lengths_is_shown(facts: SnapshotFacts) -> None:
    said = list(lines_of(facts))
    days = [day for window in facts.windows for day in window.by_day]
    assert sum(line.startswith("2017-") for line in said) == len(days) == 14 + 7
    assert all(any(name in line for line in said) for name in LENGTH_NAMES)


def test_the_page_shows_the_numbers_and_takes_no_name_for_markup(facts: SnapshotFacts) -> None:
    bad = facts.snapshot.model_copy(update={"embedding_version": "<script>alert(1)</script>"})
    page = render(SnapshotFacts(bad, facts.training, facts.holdout))
    assert "<script" not in page and "&lt;script&gt;" in page
    heads = facts.snapshot.features.head_names
    assert page.count('<svg class="panel"') == 1 + len(heads)  # of examples, and of each label
    assert page.count('<svg class="bar"') == len(LENGTH_EDGES) + len(facts.num_bytes)
    assert all(f"<figcaption>{head}</figcaption><svg" in page for head in heads)
    assert all(figure.text in page for figure in figures_of(facts))
    assert all(str(day) in page for day in facts.training.by_day)


def test_a_file_that_is_gone_is_named(built, tmp_path: Path) -> None:
    with pytest.raises(SnapshotDamagedError, match="shard-00000/requests.arrow is missing"):
        read_facts(built.newer, tmp_path)
