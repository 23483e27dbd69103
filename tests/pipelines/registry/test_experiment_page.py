"""MLflow's own pages in a headless Chromium: the list of runs, the chart, a comparison, a page."""

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from playwright.sync_api import Locator, Page, expect

from pipelines.alerts.links import HOME, IN_MLFLOW, LIST_IN_MLFLOW, mlflow_links
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import AnchorFacts, Decision, Judgement, Outcome, Promoted
from pipelines.recipes import smoke
from pipelines.recipes.text import differences
from pipelines.registry import registry, tracking
from pipelines.registry.experiment_page import LEARNING
from pipelines.settings import MLFLOW_VIEW, Settings
from pipelines.stages.compare_with_champion import _open_runs, log_sides
from support.browser import PHONE, browser, open_page
from support.desk import Desk
from support.find_servers import CHROMIUM
from support.judgements import SERVING, TESTED, interval, metric
from support.registered import judgement_of, register_bundle
from training.fitting.metrics_file import CURVE
from validation.report.verdict_page import write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM.find() is None, reason="no Chromium on this machine"),
]
OTHER = smoke().training.model_copy(update={"learning_rate": 0.1, "warmup_steps": 9})
HASTY = smoke().model_copy(update={"recipe": "hasty", "training": OTHER})
CHANGED = (0.03, 0.01, -0.02)
"""Of the first cycle against popularity, and of the next two against the champion."""
BY_PLACE = """all => [...all].sort((a, b) => a.getBoundingClientRect().x -
  b.getBoundingClientRect().x).map(each => each.innerText.trim()).slice(3, 8)"""
"""The texts of a table's cells from left to right, after the box, the name and the time."""


def with_anchor(desk: Desk, run: ResolvedRun, made: Judgement) -> Judgement:
    """Return a judgement that promotes the accepted recipe made fresh in the challenger's place."""
    run_id = tracking.open_run(desk.client, run, "anchor", "anchor")
    tracking.log_config(desk.client, run_id, smoke())
    place = desk.client.get_run(run_id).info.artifact_uri
    tags = {"bundle_digest": "b" * 64, "snapshot_digest": "c" * 64}
    model = registry.register(desk.client, run, run_id, place, tags, "anchor")
    of = {"challenger_model": model, "metrics": (metric("repin_volume_at_3", interval(0.02), 1.9),)}
    facts = {"recipe": made.comparison, "freshness": made.comparison.model_copy(update=of)}
    anchor = AnchorFacts(model=model, self_test=TESTED, serving=SERVING, **facts)
    verdict = made.verdict.model_copy(update={"promoted": Promoted.ANCHOR})
    return made.model_copy(update={"anchor": anchor, "verdict": verdict})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Outcome:
    """The outcome of three cycles' last: a worse recipe, and the accepted one goes out fresh."""
    desk = Desk(tmp_path_factory.mktemp("shown"), tracking_uri)
    for number, change in enumerate(CHANGED):
        run = desk.cycle(number, HASTY if change < 0 else smoke())
        model = register_bundle(desk.client, run, desk.folder)
        tracking.log_config(desk.client, model.mlflow_run_id, run.config)
        for step in (1, 2):
            desk.client.log_metric(model.mlflow_run_id, CURVE, change + step, step=step)
        made = judgement_of(run, model, Decision.REJECT if change < 0 else Decision.PROMOTE)
        row = metric("repin_volume_at_3", interval(change, change - 0.01, change + 0.01), 1.8)
        of = {"comparison": made.comparison.model_copy(update={"metrics": (row,)})}
        made = made.model_copy(update=of | {"report_uri": f"{run.run_uri}/out/verdict.html"})
        made = with_anchor(desk, run, made) if change < 0 else made
        place = tracking.experiment_id_of(desk.client, run)
        links = mlflow_links(tracking_uri, place, _open_runs(desk.client, run, made))
        outcome = outcome_of(run, made, None, Settings(), links)
        made = made.model_copy(update={"outcome": outcome})
        write_report(made, run, desk.folder)
        for _ in range(2):
            log_sides(desk.client, run, made, desk.folder)
        if change > 0:
            desk.promote(run, model, number, made)
    return outcome


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as started:
        page = open_page(started, (1600, 1000))
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page


def seen(page: Page, told: Outcome, label: str, text: str, more: str = "") -> Locator:
    """Open a link of an outcome, and return a text on its page once it is there."""
    page.goto("about:blank")  # an address that differs after # alone would not be loaded
    page.goto(dict(told.links)[label].replace("&workflow", f"{more}&workflow"))
    found = page.get_by_text(text).first
    expect(found).to_be_visible()
    return found


def test_the_list_has_what_is_worth_reading_and_the_chart_on_top(page: Page, told: Outcome) -> None:
    said = seen(page, told, LIST_IN_MLFLOW, "Of all cycles, that of 2017-07-10 was judged last: ")
    expect(said).to_contain_text(told.title.split(":")[0])
    home = page.get_by_role("link", name="What serves now")
    expect(home).to_have_attribute("href", dict(told.links)[HOME])
    expect(page.get_by_role("link", name="All cycles of")).to_be_visible()
    rows = [page.locator(f"[row-index='{n}'] [col-id]").evaluate_all(BY_PLACE) for n in range(8)]
    columns = ["cycle", "side", "verdict", "decision/repin_volume_at_3", "decision/change_percent"]
    assert page.locator(".ag-header-cell[col-id]").evaluate_all(BY_PLACE) == columns
    assert rows[0] == ["all cycles", "-", "-", "-", "-"]
    assert sorted(rows[1:4]) == [
        ["2017-07-10", "anchor", "PROMOTE", "1.9", "2"],
        ["2017-07-10", "challenger", "REJECT", "1.8", "-2"],
        ["2017-07-10", "champion", "-", "1", "-"],
    ]
    names = page.get_by_role("link", name=re.compile("^(2017|All)")).all_inner_texts()
    assert len(names) == len(set(names)) == 8


def test_on_a_phone_the_list_is_read_once_what_stands_beside_it_is_closed(
    page: Page, told: Outcome
) -> None:
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    seen(page, told, LIST_IN_MLFLOW, "Of all cycles")
    page.get_by_role("button", name="Close", exact=True).click()  # of MLflow's assistant
    page.get_by_role("button", name="Toggle sidebar").click()
    for text in ("2017-07-10", "anchor", "challenger", "champion"):
        expect(page.locator("[row-index] [col-id]", has_text=text).first).to_be_in_viewport(ratio=1)
    page.set_viewport_size({"width": 1600, "height": 1000})


def test_the_chart_has_each_change_with_its_interval(page: Page, told: Outcome) -> None:
    seen(page, told, LIST_IN_MLFLOW, "all cycles/change_percent vs", "&compareRunsMode=CHART")
    first = page.locator(".js-plotly-plot").filter(has=page.locator(".scatterlayer .point")).first
    expect(first).to_be_visible()
    lines = first.evaluate("plot => plot.data.map(d => [[...d.x].map(Number), [...d.y]])")
    drawn = {(*x, *(round(each, 6) for each in y)) for x, y in lines if x}
    days = (1498435200000, 1499644800000)  # 2017-06-26 and 2017-07-10
    assert drawn == {(*days, 1, -2), (*days, 0, -3), (*days, 2, -1)}


def test_a_chart_has_the_learning_curves_of_challenger_and_champion(
    page: Page, told: Outcome
) -> None:
    seen(page, told, LIST_IN_MLFLOW, LEARNING, "&compareRunsMode=CHART")
    drawn = page.locator(".js-plotly-plot").filter(has=page.locator(".scatterlayer .point")).nth(1)
    drawn.scroll_into_view_if_needed()
    expect(drawn).to_be_visible()
    lines = drawn.evaluate("plot => plot.data.map(d => [[...d.x].map(Number), [...d.y]])")
    wanted = [[[1, 2], [change + 1, change + 2]] for change in CHANGED]
    assert all(each in lines for each in wanted)


def test_a_comparison_shows_what_went_out_and_what_differs(page: Page, told: Outcome) -> None:
    seen(page, told, IN_MLFLOW, "Comparing 3 Runs")
    diff_only = page.get_by_role("switch", name="Parameters - Show diff only")
    diff_only.click()
    rows = diff_only.locator("xpath=following::table[1]").get_by_role("rowheader")
    expect(rows).to_have_text([each.split(": ")[0] for each in differences(smoke(), HASTY)])


def test_the_copy_of_the_page_has_only_links_that_open(page: Page, told: Outcome) -> None:
    runs, _, of = unquote(dict(told.links)[IN_MLFLOW].partition("runs=")[2]).partition("&")
    (experiment,), (run, *_) = json.loads(of.split("=")[1].split("&")[0]), json.loads(runs)
    server = dict(told.links)[IN_MLFLOW].partition("/#/")[0]
    page.goto("about:blank")
    artifacts = f"{server}/#/experiments/{experiment}/runs/{run}/artifacts"
    page.goto(f"{artifacts}/comparison/verdict.html?{MLFLOW_VIEW}")
    links = page.frame_locator("iframe").locator("a[href]")
    expect(links.first).to_be_visible()
    script = "all => all.map(a => [a.protocol.slice(0, 4), a.target, a.rel])"
    assert {*map(tuple, links.evaluate_all(script))} == {("http", "_blank", "noopener")}
    for link in links.all():
        with page.context.expect_page() as opened:
            link.click(modifiers=["Control"])
        opened.value.close()
