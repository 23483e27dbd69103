"""`homefeed log init`: two files into an empty folder, and a mapping guessed from tables."""

import sqlite3
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError
from pipelines.log_check.init import FILES, write_example
from pipelines.sources.mapping.load import import_log
from support.own_tables import rows_of_log

AT = pd.date_range("2026-01-01", periods=400, freq="20min", tz="UTC")


def tables_of(folder: Path, kind: str) -> list[Path]:
    """Write tables as different shops have them."""
    rows = range(len(AT))
    done = pd.DataFrame({"visitorId": [f"{n % 9:03d}" for n in rows]})
    done["itemId"] = [f"sku-{n % 23}" for n in rows]
    done["event_type"] = ["buy" if n % 5 == 0 else "view" for n in rows]
    items = pd.DataFrame({"ItemID": [f"sku-{n}" for n in range(23)]})
    items["product_title"] = [f"a red thing {n % 4}" for n in range(23)]
    paths = [folder / "events.csv", folder / "catalogue.csv"]
    if kind == "seconds":
        done["ts"] = AT.astype("int64") // 10 ** (9 if AT.unit == "ns" else 6)
        done.to_csv(paths[0], index=False)
    elif kind == "german":
        done["datetime"] = AT.strftime("%d.%m.%Y %H:%M:%S")
        items["product_title"] = "größer"
        done.to_csv(paths[0], index=False, sep=";", encoding="latin-1")
    else:
        paths[0] = folder / "events.parquet"
        done.assign(timestamp=AT).to_parquet(paths[0])
    items.to_csv(paths[1], index=False, encoding="latin-1" if kind == "german" else "utf-8")
    return paths


def test_the_files_are_written_and_named_and_nothing_is_written_over(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["log", "init", str(tmp_path / "mine")])
    assert done.output.splitlines() == [f"wrote {tmp_path / 'mine' / name}" for name in FILES]
    before = (tmp_path / "mine" / "mapping.yaml").read_text()
    with pytest.raises(ConfigurationError, match=r"holds \['README.md'.*expected an empty"):
        write_example(tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="is a file; expected an empty folder"):
        write_example(tmp_path / "mine" / "mapping.yaml")
    assert (tmp_path / "mine" / "mapping.yaml").read_text() == before


@pytest.mark.parametrize("kind", ["seconds", "german", "parquet"])
def test_a_guessed_mapping_imports_as_it_is_and_names_the_most_frequent_action(
    tmp_path: Path, kind: str
) -> None:
    tables = [f"--from={path}" for path in tables_of(tmp_path, kind)]
    CliRunner().invoke(
        app, ["log", "init", str(tmp_path / "mine"), *tables], catch_exceptions=False
    )
    mapping = tmp_path / "mine" / "mapping.yaml"
    assert "TODO" not in mapping.read_text() and "candidates are drawn" in mapping.read_text()
    import_log(mapping, str(tmp_path / "log"))
    actions = rows_of_log(tmp_path / "log", "actions")
    assert sorted(row["acted_at"] for row in actions) == [int(at.timestamp() * 1000) for at in AT]
    assert yaml.safe_load(mapping.read_text())["candidates"] == {"action": "view"}


def test_where_no_name_tells_values_do_and_a_person_is_asked(tmp_path: Path) -> None:
    flights = {"tail": ["N1", "N2"] * 200, "dest": ["IAH", "MIA"] * 200, "day": 1, "left": AT}
    pd.DataFrame(flights).to_csv(tmp_path / "flights.csv", index=False)
    airports = {"km": [3, 3], "faa": ["IAH", "MIA"], "name": ["Houston", "Miami"]}
    pd.DataFrame(airports).to_csv(tmp_path / "airports.csv", index=False)
    write_example(tmp_path / "mine", [tmp_path / "flights.csv", tmp_path / "airports.csv"])
    text = (tmp_path / "mine" / "mapping.yaml").read_text()
    tables = yaml.safe_load(text)["tables"]
    assert "# airports.csv: TODO is faa the item's id? it has a value for each row" in text
    assert tables["pins"]["columns"] == {"pin_id": "faa"}
    unnamed = {"pin_id": "TODO", "user_id": "TODO"}
    assert tables["actions"]["columns"] == {
        "acted_at": "left", **unnamed, "action_type": "'click'"}  # fmt: skip


def test_what_was_not_found_is_marked_and_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("who,what\n1,2\n1,2\n")
    tables_of(tmp_path, "seconds")
    write_example(tmp_path / "mine", [tmp_path / "odd.csv", tmp_path / "catalogue.csv"])
    text = (tmp_path / "mine" / "mapping.yaml").read_text()
    assert "# odd.csv: TODO no column looks like pin_id; it has who, what" in text
    assert "# TODO no file of actions" in text
    assert yaml.safe_load(text)["tables"]["pins"]["columns"]["pin_id"] == "TODO"
    with sqlite3.connect(tmp_path / "shop.sqlite"):
        pass
    with pytest.raises(ConfigurationError, match=r"end with \['.sqlite'\]; expected one of"):
        write_example(tmp_path / "other", [tmp_path / "shop.sqlite"])
