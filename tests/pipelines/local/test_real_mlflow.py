"""The local MLflow server: who may use it, and where it keeps what it is given."""

import httpx
import pytest

pytestmark = pytest.mark.services

CREATE, SEARCH = "experiments/create", "experiments/search"


def post(lab, path: str, name: str = "", **headers: str) -> httpx.Response:
    body = {"name": name} if name else {"max_results": 1}
    url = f"{lab.services.ports.mlflow_url}/ajax-api/2.0/mlflow/{path}"
    return httpx.post(url, json=body, headers=headers, trust_env=False)


def test_only_its_own_pages_and_programs_may_use_it(lab):
    port, server = lab.services.ports.mlflow, lab.services.ports.mlflow_url
    other = port + 1 if port < 65535 else port - 1
    foreign = [f"http://{host}:{other}" for host in ("localhost", "127.0.0.1", "[::1]")]
    for origin in (*foreign, "null", "https://example.org", "http://127.0.0.1"):
        refused = post(lab, CREATE, "foreign", Origin=origin)
        assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
        assert f"a page of {origin} may not use this MLflow server" in refused.text
        url = f"{server}/api/2.0/mlflow/experiments/search"
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert httpx.options(url, headers=asked, trust_env=False).status_code == 403
        assert httpx.get(url, headers={"Origin": origin}, trust_env=False).status_code == 403
    url, named = f"{server}/api/2.0/mlflow/experiments/get-by-name", {"experiment_name": "foreign"}
    assert httpx.get(url, params=named, trust_env=False).status_code == 404
    for host in ("localhost", "127.0.0.1"):
        assert post(lab, SEARCH, Origin=f"http://{host}:{port}").status_code == 200
        assert post(lab, SEARCH, Host=f"{host}:{port}").status_code == 200
    for host in ("10.0.0.1:5000", "example.org"):
        assert post(lab, SEARCH, Host=host).status_code == 403


def test_artifacts_lie_in_the_home_however_its_path_is_written(lab):
    names = {path.name for path in (lab.home.mlflow / "artifacts").rglob("*") if path.is_file()}
    assert "weights.safetensors" in names and "verdict.html" in names, names
    beside = {path.name for path in lab.home.path.parent.iterdir()}
    assert beside == {"event_log", lab.home.path.name}, "something was read as another path"
