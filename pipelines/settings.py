"""Where things run: URIs, names, alert transports. Read from HOMEFEED_* environment variables.

Only `resolve_run`, the alert transports and the command line look here; a stage never does.
Secrets are not here: they come from Airflow connections. Tested in tests/test_readme.py, which
compares the README's table with the fields.
"""

import os
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipelines.contracts.errors import ConfigurationError

DAG_ID = "homefeed_retrain"
Transport = Literal["outbox", "smtp", "slack", "apprise"]


class Settings(BaseSettings):
    """One deployment's places. Every field is an environment variable HOMEFEED_<NAME>.

    A variable that is empty counts as not set.
    """

    model_config = SettingsConfigDict(
        env_prefix="HOMEFEED_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    home: str = Field(default=".homefeed", description="Local folder for everything below.")
    event_log: str = Field(default="", description="Event log URI; <home>/event_log if empty.")
    workspace: str = Field(default="", description="Runs, snapshots, history; <home>/workspace.")
    tracking_uri: str = Field(
        default="http://127.0.0.1:5000", description="MLflow tracking and registry server."
    )
    experiment: str = Field(default="homefeed_retrain", description="MLflow experiment.")
    registered_model: str = Field(default="homefeed_ranker", description="MLflow registered model.")
    recipe: str = Field(default="completejourney", description="Default recipe of a run.")
    airflow_url: str = Field(default="http://127.0.0.1:8080", description="For links in alerts.")
    alert_transports: tuple[Transport, ...] = Field(
        default=("outbox",), description='JSON list, e.g. ["smtp", "slack"].'
    )
    alert_email_from: str = Field(default="homefeed-retrain@localhost", description="Sender.")
    alert_email_to: tuple[str, ...] = Field(default=(), description="JSON list of addresses.")
    smtp_conn_id: str = Field(default="smtp_default", description="Airflow connection.")
    slack_conn_id: str = Field(default="slack_default", description="Airflow webhook connection.")
    apprise_conn_id: str = Field(default="apprise_default", description="Airflow connection.")
    accelerator: Literal["cpu", "gpu"] = Field(
        default="cpu", description="Hardware that Airflow's runs train on."
    )
    retry_delay_s: float = Field(
        default=60.0, gt=0, description="Before a task's first retry; doubles with each."
    )
    stage_runner: Literal["bash", "docker", "kubernetes"] = Field(
        default="bash", description="Which Airflow operator runs the heavy stages."
    )
    stage_image: str = Field(default="", description="Image for docker and kubernetes runners.")
    command: str = Field(default="homefeed", description="The command line in the worker's shell.")
    anchor_image: str = Field(
        default="", description="Image with the code that the recipe was accepted by; train_anchor."
    )
    anchor_command: str = Field(
        default="", description="Command line of that code; that of the other stages if empty."
    )
    cadence_days: float = Field(default=14.0, gt=0, description="Days between scheduled cycles.")
    schedule_start: str = Field(
        default="2026-01-05T06:00:00+00:00", description="A cycle's start; all others follow it."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuses_a_former_name(cls, value: Any) -> Any:
        """Refuse a variable that was renamed: passed over, it would change what is scheduled."""
        if (found := os.environ.get("HOMEFEED_ANCHOR")) is not None:
            raise ConfigurationError(
                f"HOMEFEED_ANCHOR is set to {found!r}, and is called HOMEFEED_SCHEDULE_START now "
                f"(an anchor is an accepted recipe); rename it"
            )
        return value

    def image_of(self, stage: str) -> str:
        """Return the container image of one stage."""
        return (stage == "train_anchor" and self.anchor_image) or self.stage_image

    def command_of(self, stage: str) -> str:
        """Return how one stage's command line is called."""
        return (stage == "train_anchor" and self.anchor_command) or self.command

    @property
    def event_log_location(self) -> str:
        """Event log path or URI."""
        return self.event_log or f"{self.home}/event_log"

    @property
    def workspace_location(self) -> str:
        """Workspace path or URI."""
        return self.workspace or f"{self.home}/workspace"
