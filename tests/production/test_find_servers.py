"""What is said and left out where a server is missing."""

import subprocess
import sys

import pytest

from support import find_servers
from support.find_servers import SKIP_MISSING, Server


@pytest.mark.parametrize(("skips", "left_out"), [("", []), ("1", ["celery", "metrics"])])
def test_what_is_missing_is_named_and_left_out_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, skips: str, left_out: list[str]
) -> None:
    there = Server("Python", (sys.executable,), ("python3",), ("postgres",))
    gone = Server("Nothing", ("no-such-program",), ("nothing",), ("celery", "metrics"))
    monkeypatch.setattr(find_servers, "SERVERS", (there, gone))
    monkeypatch.setenv(SKIP_MISSING, skips)
    first, second = find_servers.report().splitlines()
    assert first == "Python is there"
    assert second.startswith("Nothing is MISSING, so tests/production/celery, tests/production/met")
    assert "sudo apt-get install nothing" in second and f"{SKIP_MISSING}=1" in second
    assert find_servers.left_out() == left_out


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
    gone = Server("Java", ("no-such-program",), ("new-one", "older", "oldest"), ("spark",))
    asked: list[str] = []
    monkeypatch.setattr(find_servers, "SERVERS", (gone,))
    monkeypatch.setattr(
        find_servers, "_apt", lambda *words: asked.append(words[-1]) or words[-1] != "new-one"
    )
    monkeypatch.setattr(find_servers.os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        find_servers.shutil, "which", lambda name, path=None: name if name == "apt-get" else None
    )
    find_servers.install()
    assert asked == ["update", "new-one", "older"]
