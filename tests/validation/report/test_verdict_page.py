import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.alert import NextStep
from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import Decision, Judgement, OperatingPoint, SelfTest
from pipelines.contracts.reasons import RANDOM
from pipelines.recipes import smoke
from support.holdouts import (
    AGAINST_CHAMPION,
    AGAINST_POPULARITY,
    judged,
    noisy_scores,
    planted_rows,
    popularity_scores,
)
from support.html_page import Page
from support.judgements import baseline_facts, interval, ruled, said, told
from support.runs import make_run
from validation.report.verdict_page import drawings_of, write_report

STEP = NextStep(
    sentence="v4 becomes champion & v3 rests.",
    commands=(("Who serves?", "homefeed serving"), ("Back:", "homefeed rollback --reason '<b>'")),
)
CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.5, maximum=2.0),),
    guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.5),),
)
ROWS, TRUTH = planted_rows(num_users=400)
GOOD, FAIR = noisy_scores(TRUTH, 0.2, 1), noisy_scores(TRUTH, 1.0, 2)


@pytest.fixture(scope="module")
def promoted() -> Judgement:
    return judged(ROWS, GOOD, FAIR, AGAINST_CHAMPION, CONFIG)


def page_of(found: Judgement, folder: Path, step: NextStep = STEP, **update: object) -> Page:
    shown = found.model_copy(update={"outcome": told(found, step)})
    path = write_report(shown, make_run(folder).model_copy(update=update), folder)
    return Page(path.read_text("utf-8"))


def test_the_page_holds_the_verdict_and_its_numbers(promoted: Judgement, tmp_path: Path) -> None:
    comparison, text = promoted.comparison, page_of(promoted, tmp_path).text
    expected = [
        "PROMOTE",
        *promoted.verdict.reasons,
        f"{comparison.smallest_detectable_change * 100:.2f} %",
        comparison.holdout_digest[:16],
        "test_ranker v4",
        "test_ranker v3",
        *(finding.sentence for finding in promoted.self_test.findings),
        STEP.sentence,
        *(f"{purpose} {command}" for purpose, command in STEP.commands),
    ]
    for row in comparison.metrics:
        assert row.baseline is not None
        expected += [f"{row.challenger:.4f}", f"{row.baseline:.4f}"]
        change = row.relative_change
        expected += [] if change is None else [f"{change.low * 100:+.2f} %"]
    assert [words for words in expected if words not in text] == []
    assert len(promoted.self_test.findings) == 12


def test_the_page_fetches_nothing_and_is_told_to_those_who_do_not_see_it(
    promoted: Judgement, tmp_path: Path
) -> None:
    page = page_of(promoted, tmp_path)
    html, tags = (tmp_path / "verdict.html").read_text("utf-8"), [tag for tag, _ in page.tags]
    assert len(html.encode()) < 300_000
    assert re.findall(r"https?://|//cdn|@import|url\(", html) == []
    assert not {"script", "iframe", "img", "link"} & set(tags)
    for _, attributes in page.tags:
        # What is followed only when somebody clicks: here, the page's own places.
        assert "src" not in attributes and (attributes.get("href") or "#")[0] == "#"
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("h1") == tags.count("title") == 1
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    panels = [attributes for attributes in drawn if attributes["class"] == "panel"]
    assert len(panels) == 2  # the calibration of two heads
    assert all(a["role"] == "img" and a["aria-label"] for a in panels)
    # The tracks of the changes repeat what stands beside them as text.
    assert len(drawn) > len(panels)
    assert all(a.get("aria-hidden") == "true" for a in drawn if a not in panels)
    ids = page.values_of("id")
    assert len(ids) == len(set(ids))
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")


def test_the_first_cycle_has_no_champion_and_no_invented_numbers(tmp_path: Path) -> None:
    first = judged(ROWS, GOOD, popularity_scores(ROWS), AGAINST_POPULARITY, CONFIG)
    text = page_of(first, tmp_path).text
    assert "popularity" in text and "no champion yet" in text
    assert "margin -1 %" not in text  # there is none in the first cycle
    without = [row.metric for row in first.comparison.metrics if row.baseline is None]
    # What needs probabilities, which popularity has not: four metrics, two heads, three segments.
    assert text.count(" none ") == len(without) == 4 * 2 * 3
    assert "nan" not in text


def test_no_name_reason_or_segment_is_markup_anywhere(promoted: Judgement, tmp_path: Path) -> None:
    odd = "<img src=x onerror=alert(1)>\"'&<script>alert(2)</script>"
    found = promoted.comparison
    rows = [row.model_copy(update={"segment": odd, "metric": odd}) for row in found.metrics[:3]]
    comparison = {
        "challenger_model": found.challenger_model.model_copy(update={"name": odd}),
        "metrics": (*found.metrics, *rows),
        "segment_users": found.segment_users | {odd: 3},
        "differences": (said(odd),),
    }
    update = {"verdict": ruled(Decision.REJECT, odd, odd), "anchor_note": odd}
    update |= {"self_test": SelfTest(findings=(said(odd),)),
               "comparison": found.model_copy(update=comparison)}  # fmt: skip
    step = NextStep(sentence=odd, commands=((odd, odd),))
    of_run = {"run_id": odd, "code_version": odd}
    of_run["config"] = smoke().model_copy(update={"recipe": odd})
    page = page_of(promoted.model_copy(update=update), tmp_path, step, **of_run)
    assert not {tag for tag, _ in page.tags} & {"img", "script"}
    assert not {name for _, attributes in page.tags for name in attributes if name[:2] == "on"}
    assert page.text.count("<script>alert(2)</script>") > 10


def test_a_comparison_without_numbers_still_has_a_page_and_a_curve_its_table(
    promoted: Judgement, tmp_path: Path
) -> None:
    nothing = {"metrics": (), "reliability": (), "smallest_detectable_change": None}
    bare = promoted.comparison.model_copy(update=nothing)
    point = OperatingPoint(true_change=0.02, promoted=0.91, rejected=0.04, year_quality=-0.003)
    update = {"comparison": bare, "self_test": SelfTest(), "operating_curve": (point,)}
    low = baseline_facts("newest first").model_copy(update={"level": interval(1.3, 1.2, 1.39)})
    update["baselines"] = (baseline_facts(), baseline_facts(RANDOM), low)
    text = page_of(promoted.model_copy(update=update), tmp_path).text
    assert text.count("(worse than random)") == text.count("newest first (worse") == 1
    assert "The target metric was not computed." in text
    assert "No self-test was recorded." in text
    assert "+2.00 % 91 % 4 % -0.30 %" in text


def test_the_page_says_why_a_number_is_absent(tmp_path: Path) -> None:
    never = replace(ROWS, labels={**ROWS.labels, "hide": np.zeros_like(ROWS.labels["hide"])})
    text = page_of(judged(never, GOOD, FAIR, AGAINST_CHAMPION, CONFIG), tmp_path).text
    assert "calibration_ratio.hide, challenger: No example has the action." in text
    assert "auc.hide, challenger: All examples have the same label" in text
    no_order = replace(GOOD, ranking_score=GOOD.ranking_score * np.nan)
    text = page_of(judged(ROWS, no_order, FAIR, AGAINST_CHAMPION, CONFIG), tmp_path).text
    reason = "The challenger's scores hold NaN or infinity."
    assert f"The target metric was not computed. {reason}" in text


def test_ten_requests_stand_side_by_side_with_what_was_done(
    promoted: Judgement, tmp_path: Path
) -> None:
    text, requests = page_of(promoted, tmp_path).text, promoted.comparison.requests
    acted = [pin for request in requests for pin in request.pins if pin.actions]
    ours = [pin for pin in acted if pin.challenger < pin.baseline]
    assert "10 requests, ranked by" in text and f"the challenger put {len(ours)} higher" in text
    assert all(f"Request {each.request_id} , 12 candidates" in text for each in requests)
    for pin in acted:
        told = f"{pin.pin_id}, {', '.join(pin.actions)}: place {pin.challenger} against "
        assert (told in text) == (pin.challenger != pin.baseline)
        assert (f"{told}{pin.baseline}, challenger higher" in text) == (pin in ours)


def test_the_drawings_show_both_sides_and_the_headline_first(promoted: Judgement) -> None:
    drawn = drawings_of(promoted, -0.01)
    assert [(row.metric, row.segment) for row in drawn["rows"]] == [
        *(("repin_volume_at_3", segment) for segment in ("all", "core", "non_core")),
        ("hit_at_3.repin", "all"),
        ("hit_at_3.hide", "all"),
    ]
    assert list(drawn["calibration"]) == ["repin", "hide"]
    for svg in drawn["calibration"].values():
        assert (svg.count("<rect"), svg.count("<circle")) == (10, 10)
