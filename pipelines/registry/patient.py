"""An MLflow client that asks again where asking twice does no harm, and only there.

MLflow's own client repeats every request whose answer was lost, also one that makes something: a
second run or version is then made, and the first stays behind. Its repetitions are switched off
(`pipelines.registry.tracking.connect`). What reads, and what writes the same again, is repeated
here. What makes something new goes through `pipelines.contracts.mlflow_errors.make_once`.
"""

from typing import TYPE_CHECKING, Any, cast

from pipelines.contracts.mlflow_errors import ask_again

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REPEATED = ("get_", "search_", "set_", "log_batch", "log_artifact", "download_")
_NOT_REPEATED = ("set_registered_model_alias",)
"""Who moves an alias reads it back instead (`pipelines.registry.moves`)."""


class PatientClient:
    """Stands in for a `MlflowClient`; methods are repeated by their names."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        """Return a method of the client, repeated if its name says that it may be."""
        found = getattr(self._client, name)
        if not name.startswith(_REPEATED) or name in _NOT_REPEATED or not callable(found):
            return found

        def patiently(*arguments: Any, **options: Any) -> Any:
            return ask_again(lambda: found(*arguments, **options))

        return patiently


def patient(client: "MlflowClient") -> "MlflowClient":
    """Return the client in its patient form, under the type that callers know."""
    return cast("MlflowClient", PatientClient(client))
