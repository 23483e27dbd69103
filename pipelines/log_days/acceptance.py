"""Shifts of a run's data that a person accepts, by name and with a reason.

    <run>/accepted_shifts/<expectation>.json    an AcceptedShift

Only what may be right though it is unusual can be accepted: volumes, rates and shares that moved.
A damaged file, a broken contract or an embedding that changed under its version is never right.
The run alone is concerned: the next cycle is held against this one's days, once its snapshot is
accepted. Not for judging (`validation.data_gate`). Tested in
tests/pipelines/log_days/test_acceptance.py.
"""

from datetime import datetime

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import AcceptedShift, accepted_shift_uri

ACCEPTABLE = (
    "log_harms_no_model",
    "log_has_most_days",
    "row_count_shift",
    "target_label_rate_shift",
    "every_day_has_labels",
)


def accept_shift(
    run_uri: str, expectation: str, by: str, reason: str, now: datetime
) -> AcceptedShift:
    """Record that a person accepts a shift of a run's data.

    Raises:
        ConfigurationError: the expectation is none that may be accepted, or name or reason are
            missing.
    """
    if expectation not in ACCEPTABLE:
        raise ConfigurationError(
            f"{expectation!r} cannot be accepted by a person; expected one of {list(ACCEPTABLE)}, "
            f"which may be right though they are unusual; mend the data for any other"
        )
    if not by.strip() or not reason.strip():
        raise ConfigurationError(
            f"accepting {expectation} needs a name and a reason, found {by!r} and {reason!r}; say "
            f"who you are with --by and why the data are right with --reason"
        )
    accepted = AcceptedShift(
        expectation=expectation, by=by.strip(), reason=reason.strip(), accepted_at=now
    )
    uri = accepted_shift_uri(run_uri, expectation)
    storage.write_over(uri, accepted, storage.look(uri))
    return accepted


def accepted_shifts(run_uri: str) -> dict[str, str]:
    """Return who accepted what of a run's data, and why, by expectation."""
    places = {name: accepted_shift_uri(run_uri, name) for name in ACCEPTABLE}
    return {
        name: storage.read_model(uri, AcceptedShift).sentence
        for name, uri in places.items()
        if storage.exists(uri)
    }
