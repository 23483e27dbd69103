"""The alert rules name what the code sends; tests/production/metrics shows that they fire."""

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
UNIT_TESTS = ROOT / "tests" / "docker" / "alerts"
SELECTOR = re.compile(r"\b([a-z_]+)(?:\{([^}]*)\})?\[")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
VALUES = {
    "homefeed_stage": set(STAGES),
    "homefeed_outcome": {"done", "found", "failed", "stopped"},
    "homefeed_is_retryable": {"true", "false"},
    "homefeed_verdict": {str(each) for each in Decision},
}


def rules_of(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules_of("homefeed.yaml"), ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_the_code_sends(rule: dict[str, Any]) -> None:
    sent = {metric_name(each): each for each in INSTRUMENTS}
    selectors = SELECTOR.findall(rule["expr"])
    assert selectors
    carried = set()
    for name, matchers in selectors:
        assert name in sent, name
        labels = {label_name(each) for each in sent[name].attributes}
        carried |= labels
        for label, _, values in MATCHER.findall(matchers):
            assert label in labels, f"{name} has no {label}"
            assert set(values.split("|")) <= VALUES[label]
    for labels in GROUPING.findall(rule["expr"]):
        assert {label.strip() for label in labels.split(",")} <= carried


@pytest.mark.parametrize("file", sorted(path.name for path in RULES.iterdir()))
def test_a_rule_says_what_is_wrong_and_what_to_do(file: str) -> None:
    for rule in rules_of(file):
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        kept = {
            label.strip()
            for labels in GROUPING.findall(rule["expr"])
            for label in labels.split(",")
        }
        assert named <= kept, rule["alert"]


def test_the_page_lists_the_rules() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (critical|warning) \|", page, re.MULTILINE)
    rules = [rule for name in ("homefeed.yaml", "airflow.yaml") for rule in rules_of(name)]
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in rules]


def test_each_rule_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires, silent = set(), set()
    for path in UNIT_TESTS.glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group["alert_rule_test"]:
                (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    rules = {rule["alert"] for path in RULES.iterdir() for rule in rules_of(path.name)}
    assert fires == rules
    assert silent == rules
