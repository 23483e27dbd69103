"""An experiment's page tells of its last cycles, also of those that were not judged."""

from datetime import timedelta
from pathlib import Path

import pytest
from mlflow.entities import Experiment, ExperimentTag, Run
from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH as LONGEST

from pipelines.registry import tracking
from pipelines.registry.in_mlflow.experiment import HEADING, NUM_SHOWN, describe_experiment
from support.runs import PLANTED_AS_OF, make_run


@pytest.mark.services
def test_it_tells_of_the_last_cycles_and_keeps_what_a_person_wrote(
    tmp_path: Path, tracking_uri: str
) -> None:
    name = f"told_{tmp_path.name}"
    client = tracking.connect(tracking_uri)
    experiment = client.create_experiment(name)  # by a person: without a description
    days = [PLANTED_AS_OF + timedelta(days=14 * number) for number in range(NUM_SHOWN + 1)]
    runs = [
        make_run(tmp_path, as_of=day, tracking_uri=tracking_uri, experiment=name) for day in days
    ]
    ids = [tracking.open_run(client, run, "challenger", "a challenger") for run in runs]
    for run_id in ids[:-2]:
        client.set_tag(run_id, "verdict", "REJECT")
        client.set_tag(run_id, "outcome", "v1 <b>is</b> worse\n# and | *more*")
    client.set_tag(ids[-2], tracking.FAILURE, "train_challenger broke: " + "x" * 9000)
    client.set_experiment_tag(experiment, tracking.DESCRIPTION, "Ask *team ranking*.")
    texts = []
    for _ in range(2):
        describe_experiment(client, runs[0])
        texts.append(client.get_experiment(experiment).tags[tracking.DESCRIPTION])

    assert texts[0] == texts[1]
    own, ours = texts[0].split(HEADING)
    assert own == "Ask *team ranking*.\n\n"
    lines = [line for line in ours.splitlines() if line.startswith("- ")]
    assert len(lines) == NUM_SHOWN
    newest = f"{days[-1]:%Y-%m-%d}"
    assert newest in lines[0] and lines[0].endswith("not judged")
    assert f"/runs/{ids[-1]}?workflowType=machine_learning>)" in lines[0]
    assert "broke. train_challenger broke: xxx" in lines[1].replace("\\", "")
    assert len(lines[1]) < 1000
    assert lines[2].endswith(r"**REJECT**. v1 &lt;b\>is&lt;/b\> worse \# and \| \*more\*")
    assert f"{days[0]:%Y-%m-%d}" not in ours  # the eleventh


@pytest.mark.parametrize(("length", "is_told"), [(19_000, True), (19_990, False), (20_000, False)])
def test_a_long_text_of_a_person_stays_whole_and_what_is_written_fits(
    tmp_path: Path, length: int, is_told: bool
) -> None:
    own, written = "x" * length, []

    class Described:
        tracking_uri = "http://127.0.0.1:9"

        def get_experiment_by_name(self, name: str) -> Experiment:
            tags = [ExperimentTag(tracking.DESCRIPTION, own)]
            return Experiment("1", name, "file:///a", "active", tags)

        def search_runs(self, *about: object, **options: object) -> list[Run]:
            return []

        def set_experiment_tag(self, experiment_id: str, key: str, text: str) -> None:
            written.append(text)

    describe_experiment(Described(), make_run(tmp_path))
    assert [HEADING in text for text in written] == ([True] if is_told else [])
    assert all(text.startswith(own) and len(text) <= LONGEST for text in written)


def test_an_experiment_that_is_not_there_is_left_alone(tmp_path: Path) -> None:
    asked = []

    class Nothing:
        """Has no other call: whatever is written would fail."""

        tracking_uri = "http://127.0.0.1:9"

        def get_experiment_by_name(self, name: str) -> None:
            asked.append(name)

    run = make_run(tmp_path)
    describe_experiment(Nothing(), run)
    assert asked == [run.experiment]
