"""What MLflow shows beside what a cycle needs: it fails no stage, unless a retry may help.

Not for the runs, versions and tags that later stages or other cycles read. Tested in
tests/pipelines/registry/in_mlflow/test_decoration.py.
"""

import contextlib
import logging
from collections.abc import Iterator

from pipelines.contracts.errors import HomefeedError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def as_decoration(what: str) -> Iterator[None]:
    """Run a block whose result only people look at; what keeps MLflow from taking it is told.

    A refusal would come again at each retry, after hours of training, and takes nothing from the
    verdict. What may pass is raised, so that the stage is tried again.

    Args:
        what: What the block writes, for the log.

    Raises:
        HomefeedError: the error is one that may pass.
    """
    try:
        yield
    except HomefeedError as error:
        if error.is_retryable:
            raise
        log.warning(
            "MLflow does not show %s (%s: %s); nothing else is affected",
            *(what, type(error).__name__, error),
        )
