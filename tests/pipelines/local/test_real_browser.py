"""Both pages in a headless Chromium: forms, notes and approvals in Airflow; MLflow's comparison.

With HOMEFEED_SCREENSHOTS=docs/images it also takes the README's pictures.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pipelines.alerts.links import IN_MLFLOW
from pipelines.contracts.artifacts import STAGES
from pipelines.local.airflow_api import FINAL_STATES
from pipelines.local.home import ADMIN
from pipelines.plain_text import as_markdown
from support.browser import PHONE, WIDE, browser, open_page
from support.cycles import cycle_of, judgement_of, promotion_of, states_expected
from support.find_servers import CHROMIUM
from support.lab import SECOND_DAY, Lab, Outcome
from support.serving import wait_until

pytestmark = [
    pytest.mark.services,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM.find() is None, reason="no Chromium on this machine"),
]
PATIENCE_MS = 120_000
"""A page of Airflow's or MLflow's scripts takes seconds to load on a busy machine."""
EMPTY = "about:blank"
DESK = (1600, 1000)


@pytest.fixture(scope="module")
def only_page() -> Iterator[Page]:
    with browser() as started:
        page = open_page(started, DESK)
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield page


@pytest.fixture
def page(only_page: Page) -> Iterator[Page]:
    """The page, empty between tests: one of Airflow's takes a quarter of a core, always."""
    yield only_page
    only_page.goto(EMPTY)


def at_both_widths(page: Page, address: str) -> Iterator[Page]:
    """Show an address on a desk's screen, then on a phone's."""
    for width, height in (WIDE, PHONE):
        page.set_viewport_size({"width": width, "height": height})
        page.goto(EMPTY)  # an address that differs in its fragment alone would not be loaded again
        page.goto(address)
        yield page
    page.set_viewport_size({"width": DESK[0], "height": DESK[1]})


def finish_unwatched(lab: Lab, page: Page, run_id: str) -> Outcome:
    """Wait for a run's end, and only then show again what the page showed."""
    shown = page.url
    page.goto(EMPTY)
    outcome = lab.finish(run_id)
    page.goto(shown)
    return outcome


def take_picture(page: Page, name: str) -> None:
    if folder := os.environ.get("HOMEFEED_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def log_in(page: Page, url: str, password: str) -> None:
    if page.context.cookies(url):
        return  # by an earlier test
    page.goto(url)
    page.locator("input[name=username]").fill(ADMIN)
    page.locator("input[type=password]").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda address: "/auth/login" not in address)


def test_the_dag_is_triggered_from_its_form(lab, page):
    log_in(page, lab.services.ports.airflow_url, lab.home.password())
    page.goto(f"{lab.services.ports.airflow_url}/dags/homefeed_retrain")
    expect(page.get_by_text("every 14 days from 2026-01-05 06:00")).to_be_visible()
    before = set(lab.run_ids())
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.locator("input[type=date]").fill(SECOND_DAY)
    form.locator("label[data-scope=switch], [data-scope=switch][data-part=root]").first.click()
    take_picture(page, "airflow-trigger")
    form.get_by_role("button", name="Trigger").click()
    wait_until(lambda: set(lab.run_ids()) - before, 120)
    run = lab.api.find_run(*(set(lab.run_ids()) - before))
    assert (run["conf"]["as_of"], run["conf"]["promote"]) == (SECOND_DAY, False)
    assert run["logical_date"] is not None  # the form gives one; as_of wins over it
    page.goto(url_of(lab, run["dag_run_id"]))
    expect(page.get_by_text("resolve_run").first).to_be_visible()
    outcome = finish_unwatched(lab, page, run["dag_run_id"])
    assert outcome.state == "success"
    assert f"{cycle_of(lab.home.path, run['dag_run_id']).as_of:%Y-%m-%d}" == SECOND_DAY
    states = {stage: outcome.state_of(stage) for stage in STAGES}
    assert states == states_expected(lab.home.path, run["dag_run_id"])
    assert states["promote_challenger"] == "skipped"
    # The run itself, its stages, what it came to and the task that found out.
    green = 3 + list(states.values()).count("success")
    expect(page.get_by_text("Success")).to_have_count(green)
    take_picture(page, "airflow-run")


def test_the_note_of_a_run_has_the_outcome_and_its_links(lab, page):
    log_in(page, lab.services.ports.airflow_url, lab.home.password())
    run_id = f"retrain__smoke__{SECOND_DAY}"
    page.goto(url_of(lab, run_id))
    outcome = cycle_of(lab.home.path, run_id).outcome
    expect(page.get_by_text(outcome.title).first).to_be_visible()
    take_picture(page, "airflow-note")
    page.get_by_role("button", name="Edit note").first.click()
    note = page.get_by_role("dialog")
    expect(note.get_by_text(f"{SECOND_DAY} {outcome.decision}").first).to_be_visible()
    for told in (outcome.title, outcome.number):
        expect(note.get_by_text(told).first).to_be_visible()
    with page.context.expect_page() as opened:
        note.get_by_role("link", name="Verdict page").click(modifiers=["Control"])
    expect(opened.value.get_by_text("What happens next").first).to_be_visible()
    opened.value.close()
    for shown in at_both_widths(page, url_of(lab, run_id)):
        for name in ("promoted", "anchor_promoted", "held_back", "rejected", "inconclusive"):
            expect(shown.get_by_text(name, exact=True).first).to_be_in_viewport()


def test_a_mistyped_day_says_which_day_would_do(lab, page):
    lab.start("mistyped", "1999-01-01")
    outcome = finish_unwatched(lab, page, "mistyped")
    assert (outcome.state, outcome.state_of("resolve_run")) == ("success", "skipped")
    assert not lab.alerts("runs/mistyped")
    log_in(page, lab.services.ports.airflow_url, lab.home.password())
    note = lab.get("dags/homefeed_retrain/dagRuns/mistyped")["note"]
    assert re.search(r"choose an as\\?_of .*\d{4}-\d\d-\d\d", note)
    for shown in at_both_widths(page, url_of(lab, "mistyped")):
        expect(shown.get_by_text("1999-01-01 NOT BEGUN").first).to_be_in_viewport()


CAREFUL = """
extends: smoke
promotion: {approval: {by: [admin], within_hours: 1}}
model_gate: {margin: 0.25, segment_margin: 0.5}  # so that this cycle is sure to promote
"""


def url_of(lab, run_id: str) -> str:
    return f"{lab.services.ports.airflow_url}/dags/homefeed_retrain/runs/{run_id}"


def test_a_promotion_waits_for_a_person_who_approves_it(lab, page, tmp_path):
    recipe, run_url = tmp_path / "careful.yaml", url_of(lab, "approved")
    recipe.write_text(CAREFUL)
    lab.start("approved", "2017-03-20", recipe=str(recipe), promote=True)
    [asked] = lab.alerts("runs/approved/tasks/approve_promotion", wait_s=240)
    assert asked["kind"] == "approval_wanted"
    link = dict(asked["links"])["Approve or reject"]
    assert link == f"{run_url}/tasks/approve_promotion/required_actions"
    log_in(page, lab.services.ports.airflow_url, lab.home.password())
    page.goto(link)
    approve = page.get_by_role("button", name="Approve")
    expect(approve).to_be_enabled()
    expect(page.get_by_text("waits to be approved by admin").first).to_be_visible()
    page.locator("[name=element_comment]").fill("As we said on Monday.")
    take_picture(page, "airflow-approval")
    with page.expect_response(lambda answer: answer.request.method == "PATCH") as answered:
        approve.click()
    assert answered.value.ok
    outcome = finish_unwatched(lab, page, "approved")
    states = [outcome.state_of(name) for name in ("approve_promotion", "promote_challenger")]
    assert states == ["success", "success"]
    promotion = promotion_of(lab.home.path, "approved")
    assert promotion.approval.by == ADMIN and promotion.reason.endswith(promotion.approval.sentence)
    assert promotion.approval.comment == "As we said on Monday."
    page.goto(run_url)
    expect(page.get_by_text(f"{promotion.champion_after.label} was promoted").first).to_be_visible()
    note = lab.get("dags/homefeed_retrain/dagRuns/approved")["note"]
    assert as_markdown(promotion.approval.sentence) in note and "waits" not in note


def test_airflow_leads_to_the_home_page_and_that_to_each_verdict(lab, page):
    server = lab.services.ports.airflow_url
    page.goto(f"{server}/homefeed/")  # whoever is not logged in is led there after the login
    log_in(page, server, lab.home.password())
    for shown in at_both_widths(page, server):
        expect(shown.get_by_text("Triggerer").first).to_be_visible()
        expect(shown.get_by_text("Plugin Import Error")).to_have_count(0)
        expect(shown.get_by_text("Homefeed", exact=True).first).to_be_visible()
    page.goto(f"{server}/homefeed/")
    champion = promotion_of(lab.home.path, "approved").champion_after.label
    expect(page.locator(".word", has_text=champion)).to_be_visible()
    take_picture(page, "cycles")
    page.get_by_role("link", name="Verdict page").first.click()
    expect(page.get_by_text("What happens next")).to_be_visible()
    assert page.url.startswith(f"{server}/homefeed/pages/runs/")
    take_picture(page, "verdict-page")
    page.get_by_role("link", name="Data Docs", exact=True).click()
    expect(page.get_by_text("Before and now")).to_be_visible()
    page.get_by_text("Before and now").evaluate("heading => heading.scrollIntoView()")
    take_picture(page, "data-report")
    page.go_back()
    page.get_by_role("link", name="All cycles").first.click()
    expect(page.locator(".word", has_text=champion)).to_be_visible()


def test_the_champion_goes_back_from_the_form_of_the_rollback(lab, page):
    before = judgement_of(lab.home.path, "approved").comparison.baseline_model.version
    server = lab.services.ports.airflow_url
    log_in(page, server, lab.home.password())
    page.goto(f"{server}/dags/homefeed_rollback")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    trigger = form.get_by_role("button", name="Trigger")
    expect(trigger).to_be_disabled()  # a reason is missing
    form.locator("[name=element_to_version]").fill(before)
    form.locator("[name=element_reason]").fill("Users felt it.")
    trigger.click()
    runs = "dags/homefeed_rollback/dagRuns"
    wait_until(lambda: [r for r in lab.get(runs)["dag_runs"] if r["state"] in FINAL_STATES], 120)
    assert lab.get(runs)["dag_runs"][0]["state"] == "success"
    newest = lab.get("assets/events?order_by=-timestamp&limit=1")["asset_events"][0]
    assert newest["extra"]["version"] == before
    assert newest["extra"]["reason"] == "Users felt it."


def test_two_models_are_compared_in_mlflow(lab, page):
    outcome = judgement_of(lab.home.path, f"retrain__smoke__{SECOND_DAY}").outcome
    page.goto(dict(outcome.links)[IN_MLFLOW])
    expect(page.get_by_text("Comparing 2 Runs").first).to_be_visible()
    metric = page.get_by_text("decision/repin_volume_at_3", exact=True).last
    metric.wait_for(state="attached")
    rows = page.get_by_text(re.compile(r"^(decision|holdout)/"))
    assert rows.first.inner_text().startswith("decision/")
    page.get_by_text("Metrics", exact=True).last.scroll_into_view_if_needed()
    expect(page.get_by_text("Something went wrong")).to_have_count(0)
    take_picture(page, "mlflow-compare")
