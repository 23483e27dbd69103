"""What is said and left out where a server is missing."""

import subprocess
import sys

import pytest

from support import find_servers
from support.find_servers import SKIP_MISSING, Server


@pytest.fixture
def without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which one of two servers is missing, and the user is not root."""
    there = Server("Python", sys.executable, "python3", ("postgres",))
    gone = Server("Nothing", "no-such-program", "nothing", ("celery", "metrics"))
    monkeypatch.setattr(find_servers, "SERVERS", (there, gone))
    monkeypatch.setattr(find_servers.os, "geteuid", lambda: 1000)
    monkeypatch.delenv(SKIP_MISSING, raising=False)


@pytest.mark.usefixtures("without_one")
def test_what_is_missing_is_named_with_what_it_costs_and_what_to_do() -> None:
    find_servers.install()
    there, gone = find_servers.report().splitlines()
    assert there == "Python is there"
    assert gone.startswith("Nothing is MISSING, so tests/production/celery, tests/production/metr")
    assert "sudo apt-get install nothing" in gone and f"{SKIP_MISSING}=1" in gone


@pytest.mark.usefixtures("without_one")
def test_folders_are_left_out_only_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_servers.left_out() == []
    monkeypatch.setenv(SKIP_MISSING, "1")
    assert find_servers.left_out() == ["celery", "metrics"]


@pytest.mark.parametrize(("skips", "code"), [("", 1), ("1", 0)])
def test_a_missing_server_ends_make_unless_it_is_left_out(skips: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, find_servers.__file__],
        env={"PATH": "/nowhere", SKIP_MISSING: skips},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Redis is MISSING" in done.stdout
    assert done.returncode == code


def test_where_a_release_lacks_a_package_an_older_one_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = Server("Java", "no-such-program", "new-one", ("spark",), ("older", "oldest"))
    asked: list[tuple[str, ...]] = []

    def apt(*command: str) -> bool:
        asked.append(command)
        return command != ("apt-cache", "show", "new-one")

    monkeypatch.setattr(find_servers, "SERVERS", (gone,))
    monkeypatch.setattr(find_servers, "_apt", apt)
    monkeypatch.setattr(find_servers.os, "geteuid", lambda: 0)
    found = {"apt-get": "/usr/bin/apt-get"}
    monkeypatch.setattr(find_servers.shutil, "which", lambda name, path="": found.get(name))
    find_servers.install()
    assert asked[-1] == ("apt-get", "-qq", "install", "--yes", "--no-install-recommends", "older")
