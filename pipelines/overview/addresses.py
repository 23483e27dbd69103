"""Where a deployment can be looked at, without the passwords that an address may hold.

Tested in tests/pipelines/overview/test_addresses.py.
"""

import re

from pipelines import storage
from pipelines.alerts.links import airflow_link, mlflow_address
from pipelines.settings import Settings

NO_AIRFLOW_RUN = "command line"
"""The trigger of a cycle that no Airflow ran; its page in Airflow is that of the DAG."""
_ACCOUNT = re.compile(r"(?<=://)(?!/)[^\s?#]*@")


def addresses_of(settings: Settings) -> dict[str, str]:
    """Return by its label each address that a person can open.

    MLflow's is the list of the deployment's experiment; the tracking URI without a server.
    """
    return {
        "Airflow": without_password(airflow_link(NO_AIRFLOW_RUN, settings)),
        "MLflow": without_password(mlflow_address(settings.tracking_uri, settings.experiment)),
        "Workspace": storage.to_uri(settings.workspace_location),
        "Event log": storage.to_uri(settings.event_log_location),
    }


def without_password(text: str) -> str:
    """Return a text with `***` in place of the user and password in each address in it.

    Of an address that is broken rather too much is left out than too little.
    """
    return _ACCOUNT.sub("***@", text)
