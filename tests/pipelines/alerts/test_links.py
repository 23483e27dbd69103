"""The links of alerts: none is dead, and the runbook's lead to a section that is there."""

import re
from pathlib import Path

from pipelines.alerts.links import runbook_link
from pipelines.contracts.alert import AlertKind
from pipelines.settings import Settings

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"
HOSTED = Settings(runbook_url="https://git.example.com/homefeed/-/blob/main/docs/runbook.md")


def test_the_runbook_has_the_section_of_each_kind() -> None:
    headings = re.findall(r"^## (.*)$", RUNBOOK.read_text(), re.MULTILINE)
    # The names that GitHub gives to headings.
    there = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    for kind in AlertKind:
        page, _, anchor = runbook_link(kind, HOSTED).partition("#")
        assert page == HOSTED.runbook_url and anchor in there
    told = runbook_link(AlertKind.RECOVERED, Settings())
    assert told == "docs/runbook.md#alert-recovered", "without an address no link"
