"""Pictures of the pages that the stack serves, taken by a headless Chromium that logs in."""

from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from pipelines.settings import DAG_ID
from support.find_chromium import find
from support.stack import AIRFLOW_URL, MLFLOW_URL, secret

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def take(folder: Path) -> list[Path]:
    """Save a picture of Airflow's page of the DAG and of MLflow's registered model."""
    paths = [folder / "stack-airflow.png", folder / "stack-mlflow.png"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=FLAGS)
        credentials = {"username": "admin", "password": secret("mlflow_admin_password")}
        context = browser.new_context(
            viewport={"width": 1280, "height": 800}, http_credentials=credentials
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        _log_in(page)
        page.goto(f"{AIRFLOW_URL}/dags/{DAG_ID}")
        page.get_by_text("promote_challenger").first.wait_for()
        page.screenshot(path=paths[0])
        page.goto(f"{MLFLOW_URL}/#/models/homefeed_ranker")
        page.get_by_text("champion").first.wait_for()
        page.screenshot(path=paths[1])
        browser.close()
    return paths


def _log_in(page: Page) -> None:
    page.goto(AIRFLOW_URL)
    page.locator("input[name=username]").fill("admin")
    page.locator("input[type=password]").fill(secret("admin_password"))
    page.locator("input[type=submit], button[type=submit]").first.click()
    page.wait_for_url(lambda address: "/auth/login" not in address)
