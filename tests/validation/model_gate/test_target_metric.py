"""The target metric: changed in the configuration, it changes everywhere that names it."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipelines.alerts.compose import compose_verdict
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.config import Head, Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Decision, Judgement
from pipelines.settings import Settings
from support.holdouts import AGAINST_CHAMPION, HEADS, judged, noisy_scores, planted_rows
from support.judgements import ruled, told
from support.runs import make_run
from validation.model_gate.target_metric import target_head
from validation.report.verdict_page import write_report

SAVE = Head(name="save", action_type="save", utility_weight=0.0)
THREE_HEADS = (*HEADS, SAVE)


def config_with(target: str) -> ModelGateConfig:
    return ModelGateConfig(
        target_metric=target,
        floors=(Limit(metric="calibration_ratio.repin", minimum=0.5, maximum=2.0),),
        guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.5),),
    )


@cache
def judged_by(target: str) -> Judgement:
    """Judge a good challenger on a holdout whose saves and repins are different actions."""
    rows, truth = planted_rows(num_users=300)
    saves = np.random.default_rng(8).random(len(rows.request_index)) < truth["repin"] / 2
    rows = replace(rows, labels={**rows.labels, "save": saves.astype(np.int8)})
    truth = truth | {"save": truth["repin"] / 2}
    good, fair = noisy_scores(truth, 0.2, 1), noisy_scores(truth, 1.0, 2)
    return judged(rows, good, fair, AGAINST_CHAMPION, config_with(target), THREE_HEADS)


@pytest.mark.parametrize("target", ["hit_at_3.repin", "save_volume_at_3"])
def test_metrics_verdict_self_test_page_and_alert_follow(target: str, tmp_path: Path) -> None:
    found = judged_by(target)
    comparison, head = found.comparison, "save" if "save" in target else "repin"
    volumes = {row.metric for row in comparison.metrics if "volume_at_3" in row.metric}
    assert volumes == {f"{head}_volume_at_3"}
    assert comparison.target is not None and comparison.target.metric == target
    assert comparison.smallest_detectable_change is not None
    assert found.verdict.decision is Decision.PROMOTE
    assert found.verdict.reasons[0].startswith(f"{target} is ")
    # Only the ranking that puts this head's actions last loses all of this metric.
    expected = "The worst possible ranking: REJECT (-100.0% to -100.0%)."
    assert expected in map(str, found.self_test.findings)

    shown, run = found.model_copy(update={"outcome": told(found)}), make_run(tmp_path)
    html = write_report(shown, run, tmp_path).read_text("utf-8")
    for words in (
        f"{target}, challenger",
        f"Promotion needs {target} in ",
        f"<dt>{target}</dt><dd>the target metric",
        f'<li class="is-target"><span class="name">{target}, all</span>',
    ):
        assert words in html
    rows = html.count(f'<span class="name">{target}, ')
    assert html.count('<li class="is-target">') == rows + 1  # and once at the head of the page

    rejected = found.model_copy(update={"verdict": ruled(Decision.REJECT, "It lost.")})
    outcome = outcome_of(run, rejected, None, Settings())
    alert = compose_verdict(outcome, rejected, run, Settings())
    assert alert is not None and f", {target} " in alert.title


@pytest.mark.parametrize(
    "target", ["click_volume_at_3", "repin_volume_at_5", "hide_volume_at_3", "hit_at_3.hide", ""]
)
def test_a_target_that_no_wanted_head_gives_is_refused(target: str) -> None:
    said = f"model_gate.target_metric is '{target}', expected one of .*'save_volume_at_3'"
    with pytest.raises(ConfigurationError, match=said):
        target_head(config_with(target), THREE_HEADS)
    with pytest.raises(ConfigurationError, match=said):
        judged_by(target)
