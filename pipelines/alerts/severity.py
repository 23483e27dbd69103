"""How soon somebody should look at an alert: decided here, and nowhere else.

The words are those of the rules for metrics (docs/observability.md), so that one deployment calls
the same thing by one name. Tested in tests/pipelines/alerts/test_severity.py.
"""

from pipelines.contracts.judged.alert import AlertKind, Severity

MEANINGS = {
    Severity.INFO: "nothing has to be done",
    Severity.WARNING: "somebody should look on this working day",
    Severity.CRITICAL: "the cycle stands still until somebody acts",
}
"""What each severity means, as an alert says it."""

_USUAL = {
    AlertKind.REGRESSION: Severity.WARNING,
    AlertKind.INCONCLUSIVE: Severity.INFO,
    AlertKind.DATA_GATE_FAILED: Severity.CRITICAL,
    AlertKind.BROKEN_RUN: Severity.CRITICAL,
    AlertKind.FORCED_PROMOTION: Severity.WARNING,
    AlertKind.MISSED_CYCLE: Severity.INFO,
    AlertKind.RECOVERED: Severity.INFO,
    AlertKind.APPROVAL_WANTED: Severity.WARNING,
    AlertKind.NOT_APPROVED: Severity.INFO,
}


def severity_of(kind: AlertKind, needs_somebody: bool = False) -> Severity:
    """Return the severity of an alert.

    Args:
        kind: Why somebody is told.
        needs_somebody: Whether a person has to decide though the kind as such needs nobody: nothing
            was promoted for long, say, no newer cycle makes up for a skipped one, or nobody has
            answered a question.
    """
    usual = _USUAL[kind]
    return Severity.WARNING if needs_somebody and usual is Severity.INFO else usual
