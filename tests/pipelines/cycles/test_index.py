"""The index is written beside the runs when a stage has something new to tell, and harms nobody."""

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.contracts.errors import DataContractError
from pipelines.cycles import index
from pipelines.cycles.index import keeping_index, read_index, refresh_index
from pipelines.cycles.reading import FROM_A_PAGE
from pipelines.registry.history import Move
from pipelines.settings import Settings
from support.desk import record_move
from support.judgements import CHALLENGER, CHAMPION
from support.runs import PLANTED_AS_OF, make_run, save_run

SETTINGS = Settings(registered_model="test_ranker")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    save_run(make_run(tmp_path))
    return tmp_path / "workspace"


def test_the_same_workspace_gives_the_same_page_to_which_verdict_pages_lead(
    workspace: Path,
) -> None:
    page = workspace / "runs" / "x" / "compare_with_champion" / "output-1" / "verdict.html"
    assert (page.parent / FROM_A_PAGE).resolve() == workspace / "cycles.html"
    uri, found = storage.to_uri(workspace), []
    for _ in range(2):
        refresh_index(uri, "test_ranker")
        found.append((workspace / "cycles.html").read_bytes())
    assert found[0] == found[1] and b"2017-03-02" in found[0] and b"not ended" in found[0]


@pytest.mark.parametrize(
    ("stage", "error", "is_written"),
    [
        ("compare_with_champion", None, True),
        ("alert", None, True),
        ("build_snapshot", None, False),
        ("build_snapshot", DataContractError("rows are missing"), True),
    ],
)
def test_it_is_written_when_there_is_something_new_to_tell(
    workspace: Path, stage: str, error: Exception | None, is_written: bool
) -> None:
    expected = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with expected, keeping_index(stage, storage.to_uri(workspace), "test_ranker"):
        if error:
            raise error
    assert (workspace / "cycles.html").exists() == is_written


def test_what_keeps_it_from_being_written_reddens_nothing(
    workspace: Path, monkeypatch, caplog
) -> None:
    def refuse(*about: object) -> None:
        raise ValueError("no page")

    monkeypatch.setattr(index, "read_index", refuse)
    with keeping_index("alert", storage.to_uri(workspace), "test_ranker"):
        pass
    assert not (workspace / "cycles.html").exists()
    assert "was not written anew (ValueError: no page)" in caplog.text


def test_two_stages_that_end_at_once_lose_no_news(workspace: Path, monkeypatch) -> None:
    uri, slow = storage.to_uri(workspace), []

    def read_slowly(*about: Any) -> Any:
        facts = read_index(*about)
        if not slow:
            slow.append(True)
            save_run(make_run(workspace.parent, run_id="2017-03-16--other"))
            refresh_index(uri, "test_ranker")  # as the other stage does
        return facts

    monkeypatch.setattr(index, "read_index", read_slowly)
    refresh_index(uri, "test_ranker")
    assert b"2017-03-16--other" in (workspace / "cycles.html").read_bytes()


def test_champions_follow_each_other_and_an_empty_workspace_is_no_error(tmp_path: Path) -> None:
    workspace_uri = storage.to_uri(tmp_path / "workspace")
    for _ in range(2):
        found = read_index(workspace_uri, SETTINGS)
        assert (found.cycles, found.champions, found.num_cycles) == ((), (), 0)
        (tmp_path / "workspace").mkdir(exist_ok=True)
    told = {"kind": "promotion", "previous": None, "run_uri": None, "reason": "It\nwon."}
    for days, model in enumerate((CHAMPION, CHALLENGER)):
        moved_at = PLANTED_AS_OF + timedelta(days=days)
        record_move(workspace_uri, Move(moved_at=moved_at, model=model, **told))
    newest, first = read_index(workspace_uri, SETTINGS).champions
    assert first.model == "test_ranker v3" and first.since < newest.since
    assert (newest.model, newest.reason) == ("test_ranker v4", "It won.")
