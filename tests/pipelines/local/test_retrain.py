"""The name of a cycle's run in Airflow, which takes letters, digits and few other characters."""

import re
from pathlib import Path

import pytest

from pipelines.local import retrain
from pipelines.local.layout import LocalHome
from pipelines.local.retrain import Cycle


@pytest.mark.parametrize(
    ("recipe", "run_id"),
    [
        ("smoke", "retrain__smoke__2017-06-12"),
        ("ours.ranking:careful", "retrain__careful-[0-9a-f]{8}__2017-06-12"),
        ("file:///a%20b/c%20d.yaml", "retrain__c_20d-[0-9a-f]{8}__2017-06-12"),
    ],
)
def test_a_recipe_s_reference_becomes_a_name_that_airflow_takes(recipe: str, run_id: str) -> None:
    cycle = Cycle("2017-06-12", recipe)
    assert re.fullmatch(run_id, cycle.run_id)
    assert re.fullmatch(r"[A-Za-z0-9_.~:+-]+", cycle.run_id)
    assert cycle.conf["recipe"] == recipe


def test_whoever_stops_it_is_told_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain, "_run_cycles", interrupt)
    with pytest.raises(KeyboardInterrupt):
        retrain.retrain(LocalHome(tmp_path), tmp_path, "smoke", ("2017-06-12",))
    assert capsys.readouterr().out == "stopped; the same command goes on from what had ended\n"
