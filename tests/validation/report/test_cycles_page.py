"""The index of all cycles as a text: what stands in it, what is escaped, what it weighs."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pipelines.contracts.cycle import CycleFacts, StageCost
from pipelines.contracts.decay import Decay
from pipelines.contracts.reasons import LinePoint
from support.cycle_pages import FIRST, make_facts
from support.judgements import make_failure
from support.outcome_pages import LONG, MARKUP
from validation.decay.cadence import cost_of_cadences
from validation.decay.curve import Estimate
from validation.report.cycles_page import MAX_CHAMPIONS, answers, render_cycles


def test_every_outcome_and_who_serves_is_told() -> None:
    html = render_cycles(make_facts(9))
    told = re.findall(r'<span class="badge is-(\w+)">([^<]+)</span></span>', html)
    assert told == [
        ("bad", "not readable"), ("quiet", "not ended"), ("bad", "broken"),
        ("bad", "data gate failed"), ("warn", "void"), ("warn", "INCONCLUSIVE"),
        ("bad", "REJECT"), ("good", "PROMOTE"), ("good", "PROMOTE"),
    ]  # fmt: skip
    assert '<p class="word">homefeed_ranker v1</p>' in html
    assert "<p>The monitor never ran.</p>" in html
    assert "-12.00 % (-23.00 to -4.00)" in html
    assert 'href="runs/2017-02-02--00000002/compare_with_champion/output-1/verdict.html"' in html
    assert "num_saves fell by 67 %" in html and "from 2017-01-05 on, for 14.0 days<br>" in html
    assert "from 2017-01-19 on, still<br>" in html
    assert "06:00 UTC</time>, stages took 1:15:46, CPU 7:30:00, GPU 5:00:00, peak 3.4 GB" in html


def test_what_champions_showed_first_is_drawn_by_cycle() -> None:
    facts = make_facts(9)
    seen = [
        each.model_copy(update={"shown_first": {"popular_at_3": 0.1 + 0.01 * n}})
        for n, each in enumerate(facts.cycles)
    ]
    html = render_cycles(facts.model_copy(update={"cycles": tuple(seen)}))
    part = html.partition('id="first"')[2].partition("<h2")[0]
    assert part.count("<svg") == 1 and "popular_at_3 of the champions, in percent" in part
    assert 'id="first"' not in render_cycles(facts)


def test_the_same_facts_give_the_same_page_which_fetches_and_runs_nothing() -> None:
    html = render_cycles(make_facts(20))
    assert html == render_cycles(make_facts(20))
    assert re.findall(r"<(?:script|link|img|iframe)|@import|url\(| src=| on\w+=", html) == []
    empty = render_cycles(make_facts(0))
    assert "No cycle has begun." in empty and "No champion" in empty


@pytest.mark.parametrize(("num", "name"), [(200, "ranker"), (400, LONG + MARKUP)])
def test_what_does_not_fit_is_left_out_from_the_oldest_on_and_said(num: int, name: str) -> None:
    facts = make_facts(num, name)
    html = render_cycles(facts)
    shown = html.count('<p class="about">')
    assert len(html.encode()) <= 300_000 and html.count('<span class="why soft">') <= MAX_CHAMPIONS
    assert shown == 200 if num == 200 else 50 < shown < 400
    assert (f"{num - shown} older cycles are not shown" in html) == (num == 400)
    assert facts.cycles[0].run_id in html
    assert html.partition("<details>")[0].count('<p class="about">') == 10
    assert (facts.cycles[-1].run_id in html) == (num == 200)


def test_what_others_wrote_is_text() -> None:
    html = render_cycles(make_facts(9, MARKUP))
    assert "<script>" not in html and "&lt;script&gt;alert(1)&lt;/script&gt; **bold**" in html


def test_a_cycle_that_never_began_heads_the_page_until_another_begins() -> None:
    facts = make_facts(8)
    last = facts.cycles[0]
    assert last.began_at is not None
    for hours, headed in ((1, "its day is years ahead"), (-1, "")):
        typo = CycleFacts(
            run_id="2029-01-01--00000000",
            run_uri="file:///w/runs/2029-01-01--00000000",
            failure=make_failure(
                message="its day is years ahead", occurred_at=last.began_at + timedelta(hours=hours)
            ),
            state="broken",
        )
        html = render_cycles(facts.model_copy(update={"cycles": (typo, *facts.cycles)}))
        [head] = re.findall(r'<p class="title">Newest cycle.*', html)
        assert (headed or last.happened) in head and "years ahead" in html
        assert f"broke {typo.broke_at:%Y-%m-%d %H:%M} UTC" in re.sub("<[^>]+>", "", html)


def test_what_goes_on_what_is_broken_and_the_line_are_told_at_an_instant() -> None:
    facts, due = make_facts(8), datetime(2017, 6, 1, 6, tzinfo=UTC)
    going = facts.cycles[0]
    assert going.state == "not ended" and going.began_at is not None
    points = [LinePoint(reference="logistic regression", as_of=due + days * timedelta(days=14),
                        value=0.01 * days, error=0.01) for days in range(2)]  # fmt: skip
    judged = next(each for each in facts.cycles if each.outcome)
    compared = StageCost(stage="compare_with_champion", wall_s=660, finished_at=due)
    cycles = (going, judged.model_copy(update={"line": tuple(points), "costs": (compared,)}))
    told = {"cycles": cycles, "next_due": due, "broken": ("Since then: <b>it broke</b>",)}
    now = max(cost.finished_at for cost in going.costs) + timedelta(minutes=1)
    facts = facts.model_copy(update=told)
    html = re.sub("<(?!b>)[^>]+>", "", render_cycles(facts, now))
    assert re.search(rf"Cycle {going.run_id} is at {going.next_stage}, about \d+ min left", html)
    late = re.sub("<[^>]+>", "", render_cycles(facts, now + timedelta(days=9)))
    assert "nearly done or late." in late
    assert "Next due 2017-06-01 06:00 UTC" in html and "The long-term line" in html
    assert "&lt;b&gt;it broke" in html and "asks itself again" in html
    assert "asks itself again" not in render_cycles(facts)


def test_what_a_lead_asks_is_answered_first() -> None:
    """And where it was not measured, what to run."""
    facts = make_facts(12)
    said = dict(answers(facts))
    assert said["Does retraining pay?"] == "Not measured: run homefeed decay."
    hours = sum(s.usage.cpu_s for c in facts.cycles[:10] for s in c.costs if s.usage) / 3600
    assert said["What did they cost?"].startswith(f"{hours:.2f} core-hours")
    brought = said["What did the last 10 cycles bring?"]
    assert brought.startswith("2 of 10 promoted a model, by their verdicts +3.20 % (+1.05")
    lags = np.array([14, 28])
    known = Estimate(lags, lags, np.array([-0.02, -0.03]), np.array([0.002, 0.003]), np.eye(2))
    decay = Decay(
        recipe="smoke",
        recipe_digest="d" * 64,
        code_digest="c" * 64,
        target_metric="repin_volume_at_3",
        measured_at=FIRST,
        as_of=(FIRST,) * 9,
        curves=(known.to_curve("repin_volume_at_3", 0.95),),
        core_hours=0.2,
        value=0.05,
        cadences=cost_of_cadences(known, 0.2, 0.05, 0.95),
    )
    measured = facts.model_copy(update={"decay": decay})
    pays, cadence, *_ = (answer for _, answer in answers(measured))
    assert pays.startswith("Retraining every 14 days keeps +1.9")
    assert pays.endswith("of repin_volume_at_3 against never, by 9 models.")
    assert cadence.startswith("With 1 % of it a day worth 0.05 core-hours, retraining every 7 days")
    assert cadence.endswith("cycles came every 14 days.")
    page = render_cycles(measured)
    assert page.index("Does retraining pay?") < page.index("What each cycle came to")
    assert f'href="decay/{"d" * 64}/decay.html"' in page
