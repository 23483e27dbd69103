"""The command line: exit codes carry the error class, messages name what to change."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer

from pipelines import storage
from pipelines.cli import printing
from pipelines.cli.main import GROUPS, app
from pipelines.contracts.code_identity import code_version
from pipelines.contracts.run_layout import manifest_uri
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from support.commands import lines, refusal, typed
from support.kept_cycles import begin
from support.runs import make_run, save_run
from support.worlds import write_planted_world


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("stage polish_model ./x", 78, "no stage 'polish_model'; expected one of"),
        ("stage build_snapshot ./nowhere", 78, "has no manifest of resolve_run"),
        ("resolve --as-of 12-June", 78, "expected a day such as 2017-06-12"),
        ("resolve --accelerator cuda", 64, "'cuda' is not one of 'cpu', 'gpu'"),
        ("retrain --as-of 2017-06-12", 65, "no event log at .* expected the tables"),
        ("serving", 78, "there is no workspace at file:///"),
        ("stage", 64, "Missing argument"),
        ("retrain --nodes 2", 78, "--nodes is 2; expected 1 for .*; for several machines begin"),
        ("local retrain --as-of 12-June", 78, "--as-of is '12-June'; expected a day"),
        ("resolve --accelerator gpu --devices 64", 78, "'gpu' with 64 device"),
        ("world run --to x --policy random --size num_pins=59", 78, "num_pins is '59'; .*to 60"),
        ("world run --to x --policy best", 64, "'best' is not one of 'champion', 'chall"),
    ],
)
def test_what_is_wrong_is_said_and_coded(
    tmp_path: Path, words: str, code: int, message: str
) -> None:
    done = typed(tmp_path, *words.split())
    assert done.code == code, done.err
    assert re.search(message, " ".join(done.err.replace("│", "").split())), done.err


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HOMEFEED_ALERT_TRANSPORTS", '["pager"]', "HOMEFEED_ALERT_TRANSPORTS .* 'pager'"),
        ("HOMEFEED_REGISTERED_MODEL", "team/ranker", "HOMEFEED_REGISTERED_MODEL .* no /"),
        ("HOMEFEED_WORKSPACE", "{home}/a file/workspace", "Not a directory"),
    ],
)
def test_a_wrong_setting_is_said_and_coded_before_anything_is_built(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    (home / "a file").touch()
    monkeypatch.setenv(variable, value.format(home=home))
    error = refusal("retrain", "--as-of", "2017-06-12")
    assert error.exit_code == 78 and re.search(message, str(error))
    assert [path.name for path in home.iterdir()] == ["a file"]


def test_a_stage_prints_its_manifest_last(home: Path) -> None:
    write_planted_world(home / "event_log")
    run = save_run(make_run(home))
    last = lines("stage", "build_snapshot", run.run_uri)[-1]
    assert last == manifest_uri(run.run_uri, "build_snapshot") and storage.exists(last)


def test_a_world_is_written_where_it_is_said_to_be(tmp_path: Path) -> None:
    sizes = [f"--size={each}" for each in ("num_users=200", "num_pins=500", "like=production")]
    [line] = lines("world", "run", "--to", str(tmp_path / "log"), "--policy", "random", *sizes)
    assert line.startswith("2024-01-01  random: ")
    assert set(EVENT_LOG_TABLES) <= set(storage.list_names(storage.to_uri(tmp_path / "log")))
    pins = pq.read_table(tmp_path / "log" / "pins", columns=["embedding_version"])
    assert set(pins["embedding_version"].to_pylist()) == {"pinsage-1"}


@pytest.mark.parametrize(("umask", "mode"), [("", 0o700), ("027", 0o750), ("022", 0o755)])
def test_what_is_written_is_for_whom_the_setting_names(
    tmp_path: Path, umask: str, mode: int
) -> None:
    words = "anchor set --recipe smoke --reason agreed".split()
    environment = os.environ | {
        "HOMEFEED_HOME": str(tmp_path / "home"),
        "HOMEFEED_UMASK": umask,
    }
    command = [sys.executable, "-m", "pipelines.cli", *words]
    subprocess.run(command, env=environment, check=True, umask=0o022)
    written = [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written if path.is_dir()} == {mode}
    files = {stat.S_IMODE(path.stat().st_mode) for path in written if path.is_file()}
    assert files == {mode & 0o666}


def test_a_command_begins_without_the_libraries_that_only_some_need() -> None:
    heavy = ("pandas", "torch", "mlflow", "great_expectations", "airflow", "pyarrow.dataset")
    code = f"import sys, pipelines.cli.main; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_help_has_groups_and_names_every_command(tmp_path: Path) -> None:
    shown = typed(tmp_path, "-h").out
    places = [shown.index(f" {name} ") for name in GROUPS]
    assert places == sorted(places)
    named = {name for names in GROUPS.values() for name in names}
    assert named == {*typer.main.get_command(app).commands}
    assert typed(tmp_path, "--version").out.strip() == code_version()


@pytest.mark.parametrize(
    ("text", "said"),
    [("2017-03-02--a", ""), ("2017-03-02--ab12cd34", ""), ("2017", "2 names"), ("x", "no names")],
)
def test_a_run_is_named_by_name_or_its_beginning(home: Path, text: str, said: str) -> None:
    run, _ = begin(home), begin(home, 1)
    if said:
        assert f"{text!r} is the beginning of {said} of runs" in str(refusal("reproduce", text))
    else:
        assert run.run_uri in str(refusal("reproduce", text))  # of which nothing has ended
    assert printing._runs_like("2017-03-0") == [run.run_id]
