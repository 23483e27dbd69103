"""`homefeed log`: what is printed, the exit code by severity, the page."""

import html
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.commands import as_json, homefeed, lines, refusal
from support.tiny_log import IMPRESSIONS_15, rewrite

ACTIONS_17 = "actions/day=2017-01-17/part-0.parquet"
CHECK = ("log", "check")


@pytest.fixture(autouse=True)
def by_environment(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_EVENT_LOG", str(log))


def test_a_sound_log_is_described(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = lines(*CHECK)
    said = "\n".join(shown)
    assert "11 on 6 days, 2017-01-14 to 2017-01-19; 7 requests of 2 users" in said
    assert re.search(r": 10 on 7 days: click 2 \(.*%\), long_click 1 \(.*%\), repin 7 \(", said)
    assert re.search(r"2017-01-15: 2 impressions, .*repin 1 \(50\.00%\)", said)
    assert shown[-1].endswith("0 errors, 0 warnings, 0 notes")
    read = as_json(*CHECK)
    assert (read["num_impressions"], read["num_actions"], read["problems"]) == (11, 10, [])
    assert (read["days"][0], read["days"][-1]) == ("2017-01-09", "2017-01-19")
    monkeypatch.delenv("HOMEFEED_EVENT_LOG")
    assert lines(*CHECK, str(log)) == shown
    days = lines(*CHECK, str(log), "--from", "2017-01-15", "--to", "2017-01-16")
    assert "impressions: 4 on 2 days, 2017-01-15 to 2017-01-16" in "".join(days)
    for wrong in ("yesterday", "2030-01-01"):
        assert refusal(*CHECK, str(log), "--from", wrong).exit_code == 78


def test_an_error_is_the_exit_code_for_data_and_a_warning_only_if_strict(log: Path) -> None:
    rows = pq.read_table(log / IMPRESSIONS_15, partitioning=None)
    pq.write_table(pa.concat_tables([rows] * 3), log / IMPRESSIONS_15)
    warning = "WARNING: impressions: 4 rows (26.7%) repeat a request and pin"
    assert any(warning in line for line in lines(*CHECK))
    assert refusal(*CHECK, "--strict").exit_code == 65
    pq.write_table(rows, log / IMPRESSIONS_15)
    rewrite(log, IMPRESSIONS_15, "user_id", pa.array(["1", "1"]))
    assert refusal(*CHECK).exit_code == 65
    assert as_json(*CHECK)["problems"][0]["severity"] == "error"
    wrong = "ERROR: impressions/day=2017-01-15/part-0.parquet: column 'user_id' is string"
    assert wrong in homefeed(*CHECK).output


def test_the_page_reads_offline_and_shows_problems_then_each_type_as_text(
    log: Path, tmp_path: Path
) -> None:
    names, page = ["$x_{$", "_private", "<b>bold</b>", "click"], tmp_path / "pages" / "log.html"
    kinds = pq.read_table(log / ACTIONS_17, partitioning=None)
    rows = pa.concat_tables([kinds] * 2)
    pq.write_table(rows.set_column(2, "action_type", pa.array(names)), log / ACTIONS_17)
    rewrite(log, IMPRESSIONS_15, "surface", pa.array(["<b>x</b>", None]))
    assert f"page: {page}" in homefeed(*CHECK, "--html", str(page)).output
    text = page.read_text()
    assert not re.search(r"(?:src|href)=[\"']https?:", text)
    assert text.index("surface&#39; is null") < text.index("<svg")
    for name in names:
        shown = html.escape(name, quote=False)
        assert text.count(f"<figcaption>{shown}</figcaption><svg") == 2  # of counts, and of shares
        assert f'aria-label="{shown} of each day"' in text
