"""Lines of one snapshot and of two; the page, and what is left out of a large one."""

import re
from dataclasses import replace

from pipelines.contracts.snapshot_files import open_table
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot_view.facts import Counts, SnapshotFacts, WindowFacts, compare
from pipelines.snapshot_view.showing import difference_lines, render
from pipelines.storage import local_path
from support.data_pages import MANY, SIZES, facts_of
from support.runs import make_run
from validation.report.days import MAX_PANELS


def request_ids(snapshot, folder) -> set[str]:
    tables = (open_table(folder, f"{each.name}/requests.arrow") for each in snapshot.shards)
    return {one for table in tables for one in table["request_id"].to_pylist()}


def test_the_same_snapshot_has_the_same_bytes_and_no_more_is_said(built) -> None:
    found = compare(built.newer, built.newer_dir, built.newer, built.newer_dir)
    assert list(difference_lines(found))[1:] == ["both hold the same bytes"]


def test_of_two_weeks_the_shared_requests_are_counted_and_equal_numbers_left_out(built) -> None:
    found = compare(built.older, built.older_dir, built.newer, built.newer_dir)
    older = request_ids(built.older, built.older_dir)
    newer = request_ids(built.newer, built.newer_dir)
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
    [rate] = [line for line in said if "training: label rate of save" in line]
    assert rate.endswith("-> unknown")
    back = "\n".join(difference_lines(compare(*sides[1], *sides[0])))
    assert "training: label rate of save: unknown -> " in back


def test_a_year_of_forty_heads_keeps_the_newest_days_and_says_what_is_left_out() -> None:
    facts = facts_of("huge")
    page = render(facts)
    assert len(page.encode()) <= 300_000
    days = re.findall(r'<th scope="row">(201[78]-[0-9-]+)</th>', page)
    assert days[-1] == str(max(facts.holdout.by_day)) and len(set(days)) > 50
    assert f"{365 + 7 - len(set(days))} older days are not shown" in page
    assert f"{len(MANY) - MAX_PANELS} rarer ones are not drawn" in page


def test_both_windows_are_drawn_in_every_panel_and_a_day_without_examples_has_no_share() -> None:
    facts = facts_of("usual")
    page = render(facts)
    labels = page.split("<h3>")[1]
    assert labels.count('<g class="ours">') == labels.count('<g class="theirs">') == 5
    assert labels.count("<figure>") == len(SIZES["usual"][1])
    assert "not shown" not in page and "not drawn" not in page
    first = min(facts.training.by_day)
    days = facts.training.by_day | {first: Counts(requests=4)}
    without = SnapshotFacts(facts.snapshot, replace(facts.training, by_day=days), facts.holdout)
    assert render(without).count("<circle") == page.count("<circle") - 5  # one for each head


def test_a_snapshot_without_rows_has_its_settings_and_no_panels() -> None:
    snapshot = facts_of("usual").snapshot.model_copy(update={"files": ()})
    none = WindowFacts("training", snapshot.training), WindowFacts("holdout", snapshot.holdout)
    page = render(SnapshotFacts(snapshot, *none))
    assert '<svg class="panel"' not in page
    assert '<div class="big">0</div>' in page and snapshot.embedding_version in page
