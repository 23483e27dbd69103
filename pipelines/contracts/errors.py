"""Error classes. The class says whether trying again can help; the exit code carries that abroad.

Exit codes follow sysexits(3): 65 bad data, 69 nothing to fall back on, 75 try again, 77 refused,
78 bad configuration. Anything else that escapes is a defect of ours and exits with 70.
"""

from typing import ClassVar


class HomefeedError(Exception):
    """Base of every error this project raises on purpose.

    A message says what was wrong, the value found, the value expected, and what to change.
    """

    exit_code: ClassVar[int] = 70
    is_retryable: ClassVar[bool] = False


class DataContractError(HomefeedError):
    """The data breaks its contract; the same data will break it again."""

    exit_code = 65


class DataGateFailedError(DataContractError):
    """A critical expectation of the data gate failed: no model may be trained on this snapshot."""


class SnapshotDamagedError(DataGateFailedError):
    """A file of the snapshot is missing or altered; building the snapshot again mends it."""


class TrainingDivergedError(DataContractError):
    """The loss became NaN or infinite; the same seed on the same data would do so again."""


class ConfigurationError(HomefeedError):
    """An option, a setting or a permission is wrong; a person has to change it."""

    exit_code = 78


class PromotionRefusedError(HomefeedError):
    """The registry is not in the state this run was resolved against; a new run is needed."""

    exit_code = 77


class TransientStorageError(HomefeedError):
    """Storage failed in a way that may pass: full disk, time-out, connection lost."""

    exit_code = 75
    is_retryable = True


class TrackingUnavailableError(TransientStorageError):
    """The MLflow server cannot be reached or answers with a server error."""


class RunInProgressError(HomefeedError):
    """Another process holds the lock of the same stage, run or workspace."""

    exit_code = 75
    is_retryable = True


PERMANENT_EXIT_CODES = frozenset({64, 65, 77, 78})
"""Exit codes after which a retry is a waste: usage, data, refused, configuration."""
