"""No password of the deployment is where people, other programs or other machines could read it."""

import pytest

from pipelines.contracts.artifacts import STAGES
from support.cycles import cycle_of
from support.secret_search import dump_of, files_below, found_in

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_search_finds_what_is_there(keys) -> None:
    (folder,) = {path.parent for path in keys.files}
    found = found_in(keys.words, files_below(folder))
    told = {name for name in keys.words if any(f"of {name} " in each for each in found)}
    assert told == {name for name in keys.words if name not in keys.in_environment}
    assert found_in({"it": "a b c d e f g"}, [("x", b"YSBiIGMgZCBlIGYgZw==")])


def test_no_log_no_artifact_and_no_workspace_holds_a_password(lab, second, keys) -> None:
    logs = [name for name, _ in files_below(lab.home.logs)]
    assert len([name for name in logs if "attempt=" in name]) > 2 * len(STAGES)
    assert found_in(keys.words, files_below(lab.home.path)) == []


def test_no_database_holds_a_password(lab, second, keys, database) -> None:
    """They hold rendered templates, XComs, the log of events, and MLflow's tags and parameters."""
    airflow, mlflow = (dump_of(database, user) for user in ("airflow", "mlflow"))
    run_id = cycle_of(lab.home.path, "second").run_id.encode()
    tables = airflow[1].split(b"\nCOPY public.")
    for name in (b"rendered_task_instance_fields", b"xcom", b"log"):
        (rows,) = [table for table in tables if table.startswith(name + b" (")]
        assert b"build_snapshot" in rows, name
    assert run_id in airflow[1] and run_id in mlflow[1]
    assert found_in(keys.words, [airflow, mlflow]) == []


def test_no_argument_list_and_no_message_holds_a_password(lab, second, keys, broker) -> None:
    arguments = "\n".join(lab.deployment.seen_arguments).encode()
    assert b"celery" in arguments and b"--backend-store-uri" in arguments
    messages = [each for each in files_below(broker.folder) if not each[0].endswith(".conf")]
    assert any(b"execute_workload" in content for _, content in messages)
    assert found_in(keys.words, [("an argument list", arguments), *messages]) == []
