"""Pages of the workspace, by Airflow's web server: who may see them, and what is shown."""

import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import HTTPException
from starlette.testclient import TestClient

from pipelines.contracts.judgement import Decision
from pipelines.orchestration import pages
from pipelines.orchestration.pages import make_app, respond
from pipelines.orchestration.timetable import HomefeedPlugin
from pipelines.settings import Settings
from support.kept_cycles import begin, judge

PAGE = "runs/2017-03-02--ab12cd34/compare_with_champion/output-1/verdict.html"


@pytest.fixture(autouse=True)
def workspace(home: Path) -> Path:
    judge(begin(home), Decision.REJECT, has_page=True)
    begin(home, 1)  # goes on
    (home / "secret.txt").write_text("s")
    (home / "workspace/weights.safetensors").write_text("w")
    (home / "workspace/.hidden.html").write_text("h")
    return home / "workspace"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A browser of somebody who may see the DAG."""
    allow = "airflow.api_fastapi.core_api.security.requires_access_dag"
    monkeypatch.setattr(allow, lambda *_, **__: lambda: None)
    return TestClient(make_app.__wrapped__())


def test_a_page_is_shown_as_it_lies_without_scripts_and_the_home_page_as_it_is_now(
    client: TestClient,
) -> None:
    home = client.get("/", follow_redirects=False)
    assert home.headers["location"].endswith("/pages/cycles.html")
    page = client.get(f"/pages/{PAGE}")
    assert (page.text, page.headers["content-type"]) == ("<p>", "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    home = client.get("/pages/cycles.html")
    assert home.headers["refresh"] == "60" and f'href="{PAGE}"' in home.text
    assert "Cycle 2017-03-16--ab12cd34 is at build_snapshot" in home.text
    assert "Next due" in home.text and "As of" in home.text


@pytest.mark.parametrize(
    "path",
    ["none.html", "../secret.txt", "..%2Fsecret.txt", "runs/../../secret.txt", ".hidden.html",
     "weights.safetensors", "", "runs//x.html", "/etc/passwd.txt"],
)  # fmt: skip
def test_what_is_no_page_of_the_workspace_is_not_shown(client: TestClient, path: str) -> None:
    assert client.get(f"/pages/{path}").status_code == 404
    with pytest.raises(FileNotFoundError):
        respond(path.replace("%2F", "/"), Settings())


def test_who_is_not_logged_in_is_led_to_the_login_and_a_store_that_is_away_is_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> object:
        def inner() -> None:
            raise HTTPException(401)

        return inner

    monkeypatch.setenv("HOMEFEED_WORKSPACE", "s3://bucket?key=1")
    assert client.get("/pages/x.html").status_code == 503
    monkeypatch.setattr("airflow.api_fastapi.core_api.security.requires_access_dag", refuse)
    manager = type("Manager", (), {"get_url_login": lambda _: "/auth/login"})()
    monkeypatch.setattr("airflow.api_fastapi.app.get_auth_manager", lambda: manager)
    answer = TestClient(make_app.__wrapped__()).get(f"/pages/{PAGE}", follow_redirects=False)
    assert answer.headers["location"].startswith("/auth/login?next=http%3A%2F%2Ftestserver%2Fpages")


def test_airflow_s_plugin_shows_them_and_is_found_once(repository: Path) -> None:
    assert HomefeedPlugin.fastapi_apps[0]["app"] is pages.serve
    ask = (
        "from importlib.metadata import distributions as d;"
        "print(sum(e.name == 'homefeed_timetable' for x in d() for e in x.entry_points))"
    )
    found = subprocess.check_output([sys.executable, "-c", ask], cwd=repository, text=True)
    assert found == "1\n", "remove homefeed_retrain.egg-info: Airflow tells of a plugin twice"
