"""An MLflow client that asks again where that does no harm, and writes under held leases only.

MLflow's own client repeats every request whose answer was lost, also one that makes something: a
second run or version is then made, and the first stays behind. Its repetitions are switched off
(`pipelines.registry.tracking.connect`). What reads, and what writes the same again, is repeated
here. What makes something new goes through `pipelines.contracts.mlflow_errors.make_once`.

MLflow has no conditional write, so a process that was stopped, lost its lease and woke up could
write over what its successor has written. Before each request that may write, the leases of this
process are looked at, as `pipelines.storage` does before it writes a file.
"""

from typing import TYPE_CHECKING, Any, cast

from pipelines import storage
from pipelines.contracts.mlflow_errors import ask_again

if TYPE_CHECKING:
    from mlflow import MlflowClient

_READING = ("get_", "search_", "list_", "download_")
_REPEATED = (
    *_READING,
    *("set_", "log_batch", "log_inputs", "log_artifact", "log_model_artifact"),
    "finalize_logged_model",
)
_NOT_REPEATED = ("set_registered_model_alias",)
"""Who moves an alias reads it back instead (`pipelines.registry.moves`)."""


class PatientClient:
    """Stands in for a `MlflowClient`; what is done with a method is told by its name."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        """Return a method of the client: repeated and guarded, as its name says.

        A writing method raises RunInProgressError where this process has lost a lease.
        """
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def once(*arguments: Any, **options: Any) -> Any:
            if not name.startswith(_READING):
                storage.require_held_leases()
            return found(*arguments, **options)

        def patiently(*arguments: Any, **options: Any) -> Any:
            return ask_again(lambda: once(*arguments, **options))

        return patiently if name.startswith(_REPEATED) and name not in _NOT_REPEATED else once


def patient(client: "MlflowClient") -> "MlflowClient":
    """Return the client in its patient form, under the type that callers know."""
    return cast("MlflowClient", PatientClient(client))
