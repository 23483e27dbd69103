"""MLflow draws all cycles from one run, to which each judged cycle adds its points once."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import DataContractError
from pipelines.registry import tracking
from pipelines.registry.in_mlflow.cycles import FIRST_DAY, SIDE, log_cycle
from support.registered import judgement_of
from support.runs import PLANTED_AS_OF, make_run


def model_of(version: str) -> ModelRef:
    return ModelRef(
        name="ranker",
        version=version,
        mlflow_run_id="0" * 32,
        as_of=PLANTED_AS_OF,
        bundle_digest="b",
        snapshot_digest="s",
    )


@pytest.mark.services
def test_each_cycle_adds_its_points_once(tmp_path: Path, tracking_uri: str) -> None:
    places = {"tracking_uri": tracking_uri, "experiment": f"cycles_{tmp_path.name}"}
    client, ids = tracking.connect(tracking_uri), set()
    for number, champion in enumerate((None, model_of("1"), model_of("2"))):
        day = PLANTED_AS_OF + timedelta(days=14 * number)
        run = make_run(tmp_path, as_of=day, champion=champion, **places)
        comparison = judgement_of(run, model_of(str(number + 1))).comparison
        ids |= {log_cycle(client, run, comparison) for _ in range(2)}
    nothing = comparison.model_copy(update={"metrics": ()})
    later = [run.model_copy(update={"as_of": day + timedelta(days=14 * n)}) for n in (1, 2)]
    ids.add(log_cycle(client, later[0], nothing))
    ids.add(log_cycle(client, later[1], comparison, is_void=True))

    [run_id] = ids
    found = client.get_run(run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", SIDE)
    assert tracking.CYCLE not in found.data.tags

    def line(key: str) -> list[float]:
        return [point.value for point in client.get_metric_history(run_id, key)]

    assert line("change/percent") == pytest.approx([1.0] * 3)
    assert line("change/percent high") == pytest.approx([2.0] * 3)
    assert line("target/repin_volume_at_3 of challenger") == [1.8] * 3
    assert line("champion/version") == [1.0, 2.0, 2.0, 2.0]  # the first cycle had none
    assert line("champion/repin_volume_at_3") == [1.78] * 2
    steps = [point.step for point in client.get_metric_history(run_id, "champion/version")]
    assert steps == [14, 28, 42, 56]
    client.set_tag(run_id, FIRST_DAY, "some day")
    with pytest.raises(DataContractError, match="first_day='some day'; expected the day of"):
        log_cycle(client, run, comparison)
    first = client.get_metric_history(run_id, "change/percent")[0]
    assert first.timestamp == PLANTED_AS_OF.timestamp() * 1000
