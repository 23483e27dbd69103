"""The local MLflow server: who may use it, and where it keeps what it is given."""

import httpx
import pytest

pytestmark = pytest.mark.services

CREATE, SEARCH = "experiments/create", "experiments/search"


def post(lab, path: str, name: str = "", **headers: str) -> httpx.Response:
    body = {"name": name} if name else {"max_results": 1}
    url = f"{lab.services.ports.mlflow_url}/ajax-api/2.0/mlflow/{path}"
    return httpx.post(url, json=body, headers=headers, trust_env=False)


def another(port: int) -> int:
    return port + 1 if port < 65535 else port - 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_page_of_another_server_of_this_machine_may_not_write(lab, host):
    origin = f"http://{host}:{another(lab.services.ports.mlflow)}"
    refused = post(lab, CREATE, "foreign", Origin=origin)
    assert refused.status_code == 403
    assert f"a page of {origin} may not use this MLflow server" in refused.text
    assert "access-control-allow-origin" not in refused.headers
    found = httpx.get(
        f"{lab.services.ports.mlflow_url}/api/2.0/mlflow/experiments/get-by-name",
        params={"experiment_name": "foreign"},
        trust_env=False,
    )
    assert found.status_code == 404


@pytest.mark.parametrize("origin", ["null", "https://example.org", "http://127.0.0.1"])
def test_neither_may_any_other_page_nor_may_it_ask_or_read(lab, origin):
    assert post(lab, SEARCH, Origin=origin).status_code == 403
    url = f"{lab.services.ports.mlflow_url}/api/2.0/mlflow/experiments/search"
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert httpx.options(url, headers=asked, trust_env=False).status_code == 403
    assert httpx.get(url, headers={"Origin": origin}, trust_env=False).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_its_own_pages_and_programs_may(lab, host):
    own = f"http://{host}:{lab.services.ports.mlflow}"
    assert post(lab, SEARCH, Origin=own).status_code == 200
    assert post(lab, SEARCH, Host=own.removeprefix("http://")).status_code == 200


@pytest.mark.parametrize("host", ["10.0.0.1:5000", "example.org"])
def test_a_request_for_another_host_is_refused(lab, host):
    assert post(lab, SEARCH, Host=host).status_code == 403


def test_artifacts_lie_in_the_home_however_its_path_is_written(lab):
    names = {path.name for path in (lab.home.mlflow / "artifacts").rglob("*") if path.is_file()}
    assert "weights.safetensors" in names and "verdict.html" in names, names
    beside = {path.name for path in lab.home.path.parent.iterdir()}
    assert beside == {"event_log", lab.home.path.name}, "something was read as another path"
