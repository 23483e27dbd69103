"""A stage's lines have their own levels in the task's log, and the shell's text is not in it."""

import sys

import pytest

from pipelines.orchestration.stage_log import StageHook, StageOperator

Lines = list[tuple[str, str]]
PRINTED = """
2026-01-05 06:00:00,000 INFO pipelines.stages.runner: build_snapshot begins
2026-01-05 06:00:01,000 WARNING pipelines.snapshot: the disk is nearly full
Downloading artifacts:   0%|          | 0/9\rDownloading artifacts: 100%|####| 9/9
DataGateFailedError: the data gate refused the snapshot
found 3; expected 4
2026-01-05 06:00:02,000 INFO pipelines.stages.runner: released
2026-01-05 06:00:03,000 ERROR pipelines.cli.main: unforeseen error
Traceback (most recent call last):
""".strip()


class Recorder:
    """Stands for the task's log."""

    def __init__(self) -> None:
        self.lines: Lines = []

    def __getattr__(self, level: str):  # type: ignore[no-untyped-def]
        return lambda message, *values: self.lines.append((level, message % values))


def lines_of(printed: str) -> Lines:
    """Return what the log holds of a real command that printed the text and ended with 65."""
    hook, recorder = StageHook(), Recorder()
    hook._log = recorder
    script = f"import sys; print({printed!r}); sys.exit(65)"
    assert hook.run_command([sys.executable, "-c", script]).exit_code == 65
    return recorder.lines


def outside_of_groups(lines: Lines) -> list[str]:
    """Return the texts that Airflow's page shows where all groups are folded."""
    found, depth = [], 0
    for _, text in lines:
        depth += text.startswith("::group::") - (text == "::endgroup::")
        if depth == 0 and text != "::endgroup::":
            found.append(text)
    assert depth == 0
    return found


@pytest.fixture
def told() -> Lines:
    """The log of a command that printed the above, without the marks of groups."""
    return [each for each in lines_of(PRINTED) if not each[1].startswith(("::group", "::endgroup"))]


def test_each_line_has_its_own_level(told: Lines) -> None:
    levels = [level for level, text in told if "return code" not in text]
    assert levels == ["info", "warning", "error", "error", "info", "error", "error"]
    assert told[2] == ("error", "DataGateFailedError: the data gate refused the snapshot")


def test_errors_stand_outside_of_the_groups() -> None:
    assert outside_of_groups(lines_of(PRINTED)) == [
        "DataGateFailedError: the data gate refused the snapshot",
        "found 3; expected 4",
        "2026-01-05 06:00:03,000 ERROR pipelines.cli.main: unforeseen error",
        "Traceback (most recent call last):",
        "Command exited with return code 65",
    ]


def test_the_outcome_of_a_cycle_stands_outside_of_the_groups() -> None:
    at = "2026-01-05 06:00:00,000 INFO pipelines"
    first = f"{at}.stages.compare_with_champion: v3 serves."
    printed = [f"{at}.stages.runner: begins", first, "REJECT: v4 is worse", "  homefeed status"]
    found = outside_of_groups(lines_of("\n".join([*printed, f"{at}.stages.runner: ended", "/m"])))
    assert found == [*printed[1:], "Command exited with return code 65"]


def test_neither_the_shells_text_nor_a_progress_bar_is_told(told: Lines) -> None:
    texts = "\n".join(text for _, text in told)
    assert "Running command" not in texts and "Downloading" not in texts
    assert "Command exited with return code 65" in texts


def test_the_operator_runs_its_command_by_this_hook() -> None:
    assert isinstance(StageOperator(task_id="x", bash_command="true").subprocess_hook, StageHook)
