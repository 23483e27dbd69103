"""At the end of `homefeed local retrain` each cycle is told, with its times and a next command."""

from pathlib import Path

from rich.console import Console

from pipelines.local.summary import show_summary
from pipelines.settings import Settings
from support.commands import EXECUTABLE, parse
from support.judgements import CHAMPION
from support.runs import make_run, save_run


def test_each_cycle_is_told_and_how_to_ask_what_serves(tmp_path: Path) -> None:
    run = save_run(make_run(tmp_path, champion=CHAMPION, trigger="one"))
    console = Console(record=True, width=500, file=(tmp_path / "shown").open("w"))
    show_summary(console, Settings(home=str(tmp_path)), ["one", "two"])
    title, folder, times, other, serving = console.export_text().splitlines()
    assert title == "2017-03-02  not ended: build_snapshot has not ended."
    assert folder == f"  run folder: {run.run_uri}"
    assert "outside the stages' own work; seconds: resolve_run " in times
    assert other == "two: did not begin"
    assert serving.startswith("which model serves now: ") and f" {EXECUTABLE} serving" in serving
    assert parse(serving.partition(": ")[2]).info_name == "serving"
