"""Error classes. The class of an error says whether trying again can help.

A process tells the same by its exit code, as in sysexits(3): 65 for bad data, 69 for a local
service that does not run, 75 for what may pass, 77 for a refusal, 78 for a bad configuration. Any
other error that ends a process is a defect of this project, and its exit code is 70.

Tested in tests/pipelines/orchestration/test_retries.py and tests/pipelines/cli/test_main.py.
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


class RecordDisagreesError(ConfigurationError):
    """The registry and the workspace's record say different things; a person has to look."""


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
