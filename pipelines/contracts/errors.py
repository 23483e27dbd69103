"""Error classes, by what can be done about an error: the class says whether trying again helps.

A process tells the same by its exit code, as in sysexits(3): 65 for bad data, 69 for a local
service that does not run, 75 for what may pass, 77 for a refusal, 78 for a bad configuration. Any
other error that ends a process is a defect of this project, and its exit code is 70. Errors of one
class that code or a person has to tell apart have a `kind`.

Tested in tests/pipelines/orchestration/test_retries.py and
tests/pipelines/places/test_store_errors.py.
"""

import errno
from typing import ClassVar

ASKED = "asked"
"""Kind of an error about what a person asked for, which another day or recipe would mend."""
BUNDLE_MISSING = "bundle missing"
"""Kind: a registered version is there and its files are not."""


class HomefeedError(Exception):
    """Base of every error this project raises on purpose.

    A message says what was wrong, the value found, the value expected, and what to change.
    """

    exit_code: ClassVar[int] = 70
    is_retryable: ClassVar[bool] = False
    problems: tuple[str, ...] = ()
    """Each thing that is wrong, in a sentence of its own, where the message lists them."""
    about: tuple[str, ...] = ()
    """Names of what the error is about, such as days or expectations: with the class and the place
    it tells one cause from another, which the message's words never do."""
    acceptable: tuple[str, ...] = ()
    """The expectations that stop the cycle, where a person may accept all of them."""
    docs_uri: str = ""
    """The Data Docs that show what is not met; '' where there are none."""

    def __init__(self, message: str = "", *, kind: str = "") -> None:
        """Make an error; its kind tells it from others of its class, and opens `about`."""
        super().__init__(message)
        self.kind = kind
        self.about = (kind,) if kind else ()


class DataContractError(HomefeedError):
    """The data breaks its contract; the same data will break it again."""

    exit_code = 65


class DataGateFailedError(DataContractError):
    """A critical expectation of the data gate failed: no model may be trained on this snapshot."""


class SnapshotDamagedError(DataGateFailedError):
    """A file of the snapshot is missing or altered; building the snapshot again mends it."""


class ConfigurationError(HomefeedError):
    """An option, a setting or a permission is wrong; a person has to change it."""

    exit_code = 78


class OwnFunctionError(ConfigurationError):
    """A recipe's own function cannot be found, fails, or looks at what it may not know."""


class RecordDisagreesError(ConfigurationError):
    """The registry and the workspace's record say different things; a person has to look."""


class PromotionRefusedError(HomefeedError):
    """The registry is not in the state this run was resolved against; a new run is needed."""

    exit_code = 77


class TrackingEntryMissingError(HomefeedError):
    """MLflow has no such version, model, run or file: it was deleted, or never was."""

    exit_code = 77


class _MayPassError(HomefeedError):
    """What a retry may heal."""

    exit_code = 75
    is_retryable = True


class TransientStorageError(_MayPassError):
    """Storage or a cluster failed in a way that may pass: full disk, time-out, connection lost."""


class TrackingUnavailableError(TransientStorageError):
    """The MLflow server cannot be reached or answers with a server error."""


class ProcessKilledError(_MayPassError):
    """A process of this stage was killed (SIGKILL), by a person or because memory ran out."""


class RunInProgressError(_MayPassError):
    """Another process holds the lock of the same stage, run or workspace."""


PERMANENT_EXIT_CODES = frozenset({64, 65, 77, 78})
"""Exit codes after which a retry is a waste: usage, data, refused, configuration."""


_MEANINGS: tuple[tuple[str, type[HomefeedError], str], ...] = (
    (
        "EACCES EPERM EROFS",
        ConfigurationError,
        "no permission; make the workspace writable for this user or set HOMEFEED_WORKSPACE to "
        "another place",
    ),
    (
        "ENOSPC EDQUOT",
        TransientStorageError,
        "the disk is full; free space (`homefeed gc --dry-run` lists what of the workspace may "
        "go), then retry",
    ),
    (
        "ENOENT ENOTDIR EISDIR ENAMETOOLONG ELOOP",
        ConfigurationError,
        "expected a usable path and, where something is read, something there; correct the path "
        "(HOMEFEED_HOME, HOMEFEED_WORKSPACE and HOMEFEED_EVENT_LOG set the places), or put back "
        "what was deleted",
    ),
)
"""By the operating system's names of its errors; any other one may pass."""


def explain_os_error(error: OSError, place: str, doing: str) -> HomefeedError:
    """Return an error of the operating system as one of ours: what may pass is told from the rest.

    Args:
        error: What was raised.
        place: Path or URI.
        doing: What was done there, such as 'reading'.
    """
    name, said = errno.errorcode.get(error.errno or 0), f"{doing} {place}: {error}"
    for names, kind, advice in _MEANINGS:
        if name in names.split():
            return kind(f"{said}; {advice}")
    return TransientStorageError(f"{said}; check the storage, then retry")


def as_ours(error: Exception, place: str = "this machine") -> HomefeedError | None:
    """Return an error as one of ours, or None where it is unforeseen.

    Args:
        error: What was raised.
        place: What an error of the operating system is about where it names no file.
    """
    # Libraries raise their own errors as OSError without a number; what those mean is open.
    if isinstance(error, OSError) and error.errno is not None:
        return explain_os_error(error, str(error.filename or place), "working on")
    return error if isinstance(error, HomefeedError) else None
