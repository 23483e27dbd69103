import json
from pathlib import Path

from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.contracts.judgement import Decision, Judgement, OffPolicyEstimate
from pipelines.contracts.reasons import Interval
from support.judgements import make_judgement
from support.runs import make_run, save_artifact, save_run


def said_of(tmp_path: Path, judgement: Judgement, *words: str) -> str:
    run = save_run(make_run(tmp_path))
    save_artifact(run, "compare_with_champion", judgement)
    words = ("estimate", "--run", run.run_uri, *words)
    return CliRunner().invoke(app, words, catch_exceptions=False).output


def test_each_estimate_is_a_line_and_what_is_missing_is_said(tmp_path: Path) -> None:
    change = Interval(value=0.05, low=-0.01, high=0.11, confidence=0.95)
    fields = {"num_requests": 120, "effective_size": 340.4}
    found = (
        OffPolicyEstimate(
            estimator="slate SNIPS, top 3",
            challenger=1.05,
            baseline=1.0,
            relative_change=change,
            **fields,
        ),
        OffPolicyEstimate(
            estimator="doubly robust, top 3",
            challenger=None,
            baseline=None,
            relative_change=None,
            note="No chances were logged.",
            **fields,
        ),
    )
    judgement = make_judgement(Decision.REJECT).model_copy(update={"estimates": found})
    said = said_of(tmp_path, judgement)
    assert "repin_volume_at_3: 1.5000 against 1.6000, -6.25% (-5.00% to -1.00%)" in said
    assert "slate SNIPS, top 3: 1.0500 against 1.0000, +5.00% (-1.00% to +11.00%)" in said
    assert "on 120 exploration requests, worth 340" in said
    assert "doubly robust, top 3: No chances were logged." in said


def test_without_exploration_that_is_said(tmp_path: Path) -> None:
    judgement = make_judgement(Decision.REJECT)
    assert "nothing else can be estimated" in said_of(tmp_path, judgement)
    read = json.loads(said_of(tmp_path, judgement, "--json"))
    assert read["target"]["relative_change"]["value"] == -0.0625
    assert (read["num_requests"], read["estimates"]) == (5678, [])
