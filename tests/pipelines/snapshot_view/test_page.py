"""The page of a snapshot: what is left out of a large one, and what a bare one still says."""

import re

from pipelines.snapshot_view.facts import Counts, SnapshotFacts, WindowFacts
from pipelines.snapshot_view.page import render
from support.data_pages import MANY, SIZES, facts_of
from validation.report.days import MAX_PANELS


def test_a_year_of_forty_heads_keeps_the_newest_days_and_says_what_is_left_out() -> None:
    facts = facts_of("huge")
    page = render(facts)
    assert len(page.encode()) <= 300_000
    days = re.findall(r'<th scope="row">(201[78]-[0-9-]+)</th>', page)
    assert days[-1] == str(max(facts.holdout.by_day)) and len(set(days)) > 50
    assert f"{365 + 7 - len(set(days))} older days are not shown" in page
    assert f"{len(MANY) - MAX_PANELS} rarer ones are not drawn" in page


def test_both_windows_are_drawn_in_every_panel_of_labels() -> None:
    page = render(facts_of("usual"))
    labels = page.split("<h3>")[1]
    assert labels.count('<g class="ours">') == labels.count('<g class="theirs">') == 5
    assert labels.count("<figure>") == len(SIZES["usual"][1])
    assert "not shown" not in page and "not drawn" not in page


def test_a_day_without_examples_has_no_share() -> None:
    facts = facts_of("usual")
    whole = render(facts).count("<circle")
    first = min(facts.training.by_day)
    facts.training.by_day[first] = Counts(requests=4)
    assert render(facts).count("<circle") == whole - 5  # one for each head


def test_a_snapshot_without_rows_has_its_settings_and_no_panels() -> None:
    facts = facts_of("usual")
    snapshot = facts.snapshot.model_copy(update={"files": ()})
    none = WindowFacts("training", snapshot.training), WindowFacts("holdout", snapshot.holdout)
    page = render(SnapshotFacts(snapshot, *none))
    assert '<svg class="panel"' not in page
    assert '<div class="big">0</div>' in page and snapshot.embedding_version in page
