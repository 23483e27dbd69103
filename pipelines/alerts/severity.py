"""How soon somebody should look at an alert: decided here, and nowhere else.

The words are those of the rules for metrics (docs/observability.md), so that one deployment calls
the same thing by one name. Tested in tests/pipelines/alerts/test_severity.py.
"""

from pipelines.contracts.judged.alert import AlertKind, AlertSeverity

MEANINGS = {
    AlertSeverity.INFO: "nothing has to be done",
    AlertSeverity.WARNING: "somebody should look on this working day",
    AlertSeverity.CRITICAL: "the cycle stands still until somebody acts",
}
"""What each severity means, as an alert says it."""

_USUAL = {
    AlertKind.REGRESSION: AlertSeverity.WARNING,
    AlertKind.INCONCLUSIVE: AlertSeverity.INFO,
    AlertKind.DATA_GATE_FAILED: AlertSeverity.CRITICAL,
    AlertKind.BROKEN_RUN: AlertSeverity.CRITICAL,
    AlertKind.FORCED_PROMOTION: AlertSeverity.WARNING,
    AlertKind.MISSED_CYCLE: AlertSeverity.INFO,
    AlertKind.RECOVERED: AlertSeverity.INFO,
    AlertKind.APPROVAL_WANTED: AlertSeverity.WARNING,
    AlertKind.NOT_APPROVED: AlertSeverity.INFO,
}


def severity_of(kind: AlertKind, needs_somebody: bool = False) -> AlertSeverity:
    """Return the severity of an alert.

    Args:
        kind: Why somebody is told.
        needs_somebody: Whether a person has to decide though the kind as such needs nobody: nothing
            was promoted for long, say, no newer cycle makes up for a skipped one, or nobody has
            answered a question.
    """
    usual = _USUAL[kind]
    return AlertSeverity.WARNING if needs_somebody and usual is AlertSeverity.INFO else usual
