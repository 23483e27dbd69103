"""Whether an attempt that met another one at its stage may be passed over in silence.

The attempt that was refused says that the other one tells how the stage ends. This asks whether it
does: it may have been killed since. Not for what is told (`pipelines.alerts.compose`).
"""

from pipelines import storage
from pipelines.contracts.errors import LostRaceError
from pipelines.contracts.run_layout import StageFailure, manifest_uri, stage_lease_uri


def is_lost_race(failure: StageFailure) -> bool:
    """Return whether a stage's newest failure is that another process was at work there."""
    return failure.error_class == LostRaceError.__name__


def is_told_by_another(run_uri: str, stage: str) -> bool:
    """Return whether the stage has ended well, or another process is at work on it right now.

    A failure that the other one has left is newer than the lost race, and is told itself.
    """
    return storage.exists(manifest_uri(run_uri, stage)) or storage.is_held(
        stage_lease_uri(run_uri, stage)
    )
