"""No password of the deployment is where people, other programs or other machines could read it."""

import base64
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import STAGES
from support.cycles import cycle_of
from support.database_server import DatabaseServer, program

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]


def forms_of(word: str) -> list[bytes]:
    """Return how a password may stand in a text.

    As base64 a word looks otherwise at each of three offsets; of each the part is taken that does
    not depend on what stands before and after.
    """
    found = [word.encode()]
    for offset in range(3):
        coded = base64.b64encode(b"." * offset + word.encode())
        found.append(coded[4 if offset else 0 : -4])
    return found


def found_in(words: Mapping[str, str], texts: Iterable[tuple[str, bytes]]) -> list[str]:
    """Return, for each text that holds a password, which one it is and where it stands."""
    forms = {name: forms_of(word) for name, word in words.items()}
    return [
        f"the password of {name} stands in {place}"
        for place, text in texts
        for name, each in forms.items()
        if any(form in text for form in each)
    ]


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Give the content of every file below a folder, and its name."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()


def dump_of(server: DatabaseServer, user: str) -> tuple[str, bytes]:
    """Return all that a user's database holds, as text."""
    command = [program("pg_dump"), "-h", "127.0.0.1", "-p", str(server.port), "-U", user, user]
    environment = os.environ | {"PGPASSWORD": server.passwords[user]}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return f"the database of {user}", done.stdout


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
