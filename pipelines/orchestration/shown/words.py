"""The words of a run's note: those of the outcome or of the alert, as many as Airflow keeps.

Not for when a note is written (`pipelines.orchestration.shown.run_note`). Tested in
tests/pipelines/orchestration/shown/test_words.py.
"""

import re
from collections.abc import Sequence

from pipelines.alerts.links import IN_MLFLOW, PAGE_IN_MLFLOW
from pipelines.contracts.judged.alert import Alert
from pipelines.contracts.judged.outcome import Outcome
from pipelines.plain_text import as_markdown, link_target, one_line

LIMIT = 1000
"""Characters of a note that Airflow keeps."""
SIGNATURE = "— homefeed_retrain"
"""Ends what is ours: the rest of a note is a person's."""
_TITLE, _MESSAGE = 300, 500
"""Characters that a title and the message of a failure may take."""
_OURS = re.compile(
    r"^\*\*(?:PROMOTE|REJECT|INCONCLUSIVE|BROKEN|APPROVED|NOT APPROVED)\*\*: .*?"
    rf"^{re.escape(SIGNATURE)}$\n*",
    re.DOTALL | re.MULTILINE,
)


def told_of(outcome: Outcome) -> list[str]:
    """Return a cycle's outcome as paragraphs of Markdown, what matters most first.

    Of the first one Airflow's page shows the beginning, of the others nothing before a click.
    """
    shown = dict(outcome.links)
    labels = [label for label in (PAGE_IN_MLFLOW, IN_MLFLOW) if label in shown]
    links = [_as_link(label, shown[label]) for label in labels]
    if not links and "Verdict page" in shown:
        links = [_as_link("Verdict page", shown["Verdict page"])]
    page, others = links[:1], links[1:]
    said = (outcome.done, outcome.next_step.sentence, outcome.most_hurt, *outcome.warnings)
    return [
        f"**{outcome.decision}**: {as_markdown(_cut(outcome.title, _TITLE))}",
        f"**{as_markdown(outcome.serves)}**",
        *page,
        *(as_markdown(text) for text in (outcome.number, outcome.why)),
        *others,
        *(as_markdown(text) for text in said if text),
    ]


def told_of_failure(alert: Alert) -> list[str]:
    """Return what is told of a broken run as paragraphs of Markdown, what broke first."""
    said = (_cut(alert.happened, _MESSAGE), alert.done, alert.next_step.sentence)
    return [
        f"**BROKEN**: {as_markdown(_cut(alert.title, _TITLE))}",
        *(as_markdown(text) for text in said if text),
    ]


def merged(before: str, told: Sequence[str]) -> str:
    """Return a run's note with what is told of the run, and all that people wrote into it.

    What an earlier end of the same run left is replaced.

    Args:
        before: The note as it is; '' for none.
        told: Paragraphs of Markdown, the most important first; those that find no room are left
            out. Where the first finds none, a person's note stays alone.
    """
    kept = _OURS.sub("", before).strip()
    room = LIMIT - len(SIGNATURE) - (len(kept) + 2 if kept else 0)
    fitting: list[str] = []
    for paragraph in told:
        if len(paragraph) + 2 <= room:
            fitting.append(paragraph)
            room -= len(paragraph) + 2
        elif not fitting:
            break
    parts = [kept] if kept else []
    return "\n\n".join([*parts, *fitting, SIGNATURE] if fitting else parts)


def _as_link(label: str, uri: str) -> str:
    """Return a link of Markdown, or both as text where the address may not be one."""
    if link_target(uri) and "<" not in uri and ">" not in uri:
        return f"[{as_markdown(label)}](<{uri}>)"
    return f"{as_markdown(label)}: {as_markdown(uri)}"


def _cut(text: str, most: int) -> str:
    line = one_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"
