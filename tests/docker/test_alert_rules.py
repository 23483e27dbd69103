"""The alert rules name what the code sends; tests/production/metrics shows that they fire."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.judgement import Decision
from pipelines.metrics.instruments import INSTRUMENTS
from support.prometheus_names import label_name, metric_name

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "docker" / "alerts"
SELECTOR = re.compile(r"\b([a-z_]+)(?:\{([^}]*)\})?\[")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
ANY_MODEL = 'homefeed_model=~"$model"'
VALUES = {
    "homefeed_stage": set(STAGES),
    "homefeed_outcome": {"done", "found", "failed", "stopped"},
    "homefeed_is_retryable": {"true", "false"},
    "homefeed_verdict": {str(each) for each in Decision},
}
READ = [yaml.safe_load((RULES / f"{name}.yaml").read_text()) for name in ("homefeed", "airflow")]
OURS, AIRFLOWS = ([rule for each in file["groups"] for rule in each["rules"]] for file in READ)


def grouped_by(rule: dict[str, Any]) -> set[str]:
    """Return the labels that a rule's expression keeps."""
    return {each.strip() for kept in GROUPING.findall(rule["expr"]) for each in kept.split(",")}


@pytest.mark.parametrize("rule", OURS, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_the_code_sends(rule: dict[str, Any]) -> None:
    assert_is_sent(rule)


def assert_is_sent(rule: dict[str, Any]) -> None:
    """Check that an expression names metrics, labels and values that the code sends."""
    sent = {metric_name(one): set(map(label_name, one.attributes)) for one in INSTRUMENTS}
    selectors = SELECTOR.findall(rule["expr"])
    assert selectors
    carried = set()
    for name, matchers in selectors:
        assert name in sent, name
        carried |= sent[name]
        for label, _, values in MATCHER.findall(matchers):
            assert label in sent[name], f"{name} has no {label}"
            assert set(values.split("|")) <= VALUES[label]
    assert grouped_by(rule) <= carried


PANELS = json.loads((ROOT / "docker" / "dashboards" / "homefeed.json").read_text())["panels"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_what_the_code_sends(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert_is_sent(target | {"expr": target["expr"].replace(ANY_MODEL, "")})
        shown = re.findall(r"{{(\w+)}}", target["legendFormat"])
        assert {*shown} <= grouped_by(target)


@pytest.mark.parametrize("rule", [*OURS, *AIRFLOWS], ids=lambda rule: rule["alert"])
def test_a_rule_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description"}
    named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert named <= grouped_by(rule)


def test_the_page_lists_the_rules_and_each_fires_in_a_test_and_not_in_another() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (critical|warning) \|", page, re.MULTILINE)
    rules = [*OURS, *AIRFLOWS]
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in rules]
    fires, silent = set(), set()
    for path in Path(__file__).with_name("alerts").glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group["alert_rule_test"]:
                (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    assert fires == silent == {rule["alert"] for rule in rules}
