"""Where things run: URIs, names, alert transports. Read from HOMEFEED_* environment variables.

Only `resolve_run`, the alert transports, the links of what people are told, the command line and
the choice of the engine that builds a snapshot look here; no other stage does.
Secrets are not here: they come from Airflow connections. docs/settings.md is made from the
descriptions (tests/support/settings_page.py).
"""

import os
import re
from difflib import get_close_matches
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.stage_table import HEAVY, Resources
from pipelines.places.credentials import require_plain

DAG_ID = "homefeed_retrain"
Transport = Literal["outbox", "smtp", "slack", "apprise"]
_PAGE = re.compile(r"(https?://[^\s/#@]+(/[^\s#@]*)?|file:///[^\s#@]+)")
_MODEL_NAME = re.compile(r"\w[\w .-]{0,199}")


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
    recipe: str = Field(
        default="completejourney",
        description="Default recipe of a run: a name, module:function, or a YAML or TOML file.",
    )
    recipe_packages: str = Field(
        default="",
        description="Packages, comma separated, whose functions a triggered run may name.",
    )
    airflow_url: str = Field(default="http://127.0.0.1:8080", description="For links in alerts.")
    alert_transports: tuple[Transport, ...] = Field(
        default=("outbox",), description='JSON list, e.g. ["smtp", "slack"].'
    )
    alert_email_from: str = Field(default="homefeed-retrain@localhost", description="Sender.")
    alert_email_to: tuple[str, ...] = Field(default=(), description="JSON list of addresses.")
    reader_zone: str = Field(
        default="UTC", description="IANA name of the zone that alerts tell the time in besides UTC."
    )
    runbook_url: str = Field(
        default="", description="Page of docs/runbook.md, for the links in alerts."
    )
    accelerator: Literal["cpu", "gpu"] = Field(
        default="cpu", description="Hardware that Airflow's runs train on."
    )
    retry_delay_s: float = Field(
        default=60.0, gt=0, description="Before a task's first retry; doubles with each."
    )
    snapshot_engine: Literal["local", "spark"] = Field(
        default="local", description="What builds snapshots; their bytes are the same."
    )
    spark_master: str = Field(
        default="", description="Spark's master URL; what Spark itself is told, if empty."
    )
    spark_conn_id: str = Field(
        default="", description="Airflow connection that names the master, in place of the URL."
    )
    spark_options: dict[str, str] = Field(
        default={}, description='JSON of Spark options, e.g. {"spark.executor.memory": "3g"}.'
    )
    stage_runner: Literal["bash", "docker", "kubernetes"] = Field(
        default="bash", description="Which Airflow operator runs the heavy stages."
    )
    stage_image: str = Field(default="", description="Image for docker and kubernetes runners.")
    command: str = Field(default="homefeed", description="The command line in the worker's shell.")
    stage_resources: dict[str, Resources] = Field(
        default={}, description="JSON by stage; the others have those of `stage_table`."
    )
    snapshot_memory_gib: float = Field(
        default=0.0, ge=0, description="Memory of a snapshot's builder, in GiB; 0: half of it all."
    )
    work_folder: str = Field(
        default="", description="Where trainings keep checkpoints if the workspace is a store."
    )
    gpus_per_node: int | None = Field(
        default=None, ge=0, description="GPUs of a machine that trains; None: see resolve_run."
    )
    docker_network: str = Field(default="", description="Network of the stages' containers.")
    pod_template: str = Field(
        default="", description="File with the pod that a stage's pod begins as; for kubernetes."
    )
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
    keep_days: float = Field(
        default=180.0,
        ge=1,
        description="Age at which `homefeed gc` deletes runs, snapshots, work folders, alerts and "
        "models that nothing needs; what served within it is needed.",
    )
    rollback_models: int = Field(
        default=3, ge=1, description="Predecessors of the champion that are kept, whatever the age."
    )

    def __init__(self, **values: Any) -> None:
        """Read the environment.

        Raises:
            ConfigurationError: a variable does not hold what it may; the message names all of them.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            found = "; ".join(_problem(detail) for detail in error.errors(include_url=False))
            raise ConfigurationError(f"{found}; correct the environment") from None
        except SettingsError as error:
            raise ConfigurationError(f"{_no_json(error)}; correct the environment") from None

    @field_validator("registered_model")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        """Refuse a name that the registry or a folder of the workspace would refuse much later."""
        if not _MODEL_NAME.fullmatch(value):
            raise ValueError(
                "expected the name of a registered model: letters, digits, spaces and the "
                "characters _ . - only, a letter or digit first, at most 200 of them (MLflow "
                "allows no / and no :)"
            )
        return value

    @field_validator("home", "event_log", "workspace", "recipe")
    @classmethod
    def _holds_no_keys(cls, value: str, info: ValidationInfo) -> str:
        """Refuse keys before any message, alert or command repeats the place."""
        require_plain(value, f"HOMEFEED_{str(info.field_name).upper()}")
        return value

    @field_validator("stage_resources")
    @classmethod
    def _are_heavy_stages(cls, value: dict[str, Resources]) -> dict[str, Resources]:
        """Refuse a stage that has no container, whose resources would be asked for in silence."""
        if unknown := value.keys() - HEAVY.keys():
            raise ValueError(f"no such stages: {sorted(unknown)}; expected some of {list(HEAVY)}")
        return value

    @field_validator("spark_conn_id")
    @classmethod
    def _names_a_connection(cls, value: str) -> str:
        """Refuse what would be more than a name in the text that Airflow fills in."""
        if not re.fullmatch(r"[\w.-]*", value, re.ASCII):
            raise ValueError("expected the id of an Airflow connection: letters, digits and _ . -")
        return value

    @field_validator("recipe_packages")
    @classmethod
    def _are_packages(cls, value: str) -> str:
        """Refuse what names no package, and so would allow nothing, in silence."""
        for name in _names(value):
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(
                    f"{name!r} is no name of a package; expected names such as "
                    f"ranking,ours.features"
                )
        return value

    @field_validator("alert_email_from", "alert_email_to")
    @classmethod
    def _is_one_line(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Refuse a line break, which would begin another header of the mail."""
        if not "".join(value).isprintable():
            raise ValueError("expected addresses without line breaks or control characters")
        return value

    @field_validator("reader_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        """Refuse a name that no time could be told in when an alert is due."""
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):  # a path out of the folder, a folder, no such name
            near = get_close_matches(value, available_timezones(), n=1)
            hint = f" (perhaps {near[0]} is meant)" if near else ""
            raise ValueError(
                f"expected the IANA name of a time zone, such as Europe/Berlin{hint}"
            ) from None
        return value

    @field_validator("runbook_url")
    @classmethod
    def _is_a_page(cls, value: str) -> str:
        """Refuse what would be a dead link, or show who logs in to everybody who is told."""
        if value and not _PAGE.fullmatch(value):
            raise ValueError(
                "expected the address of a page, such as https://git.example.com/docs/runbook.md, "
                "without a #section, which alerts add, and without a login"
            )
        return value

    def image_of(self, stage: str) -> str:
        """Return the container image of one stage."""
        return (stage == "train_anchor" and self.anchor_image) or self.stage_image

    def command_of(self, stage: str) -> str:
        """Return how one stage's command line is called."""
        return (stage == "train_anchor" and self.anchor_command) or self.command

    def resources_of(self, stage: str) -> Resources:
        """Return what the container of one heavy stage asks for."""
        return self.stage_resources.get(stage, HEAVY[stage])

    @property
    def triggerable_packages(self) -> tuple[str, ...]:
        """Packages whose functions a triggered run may name besides those of its own recipe's."""
        return _names(self.recipe_packages)

    @property
    def event_log_location(self) -> str:
        """Event log path or URI."""
        return self.event_log or f"{self.home}/event_log"

    @property
    def workspace_location(self) -> str:
        """Workspace path or URI."""
        return self.workspace or f"{self.home}/workspace"


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a list that is separated by commas."""
    return tuple(name for each in text.split(",") if (name := each.strip()))


def _problem(detail: Any) -> str:
    """Say in one line what is wrong with one variable (`ValidationError.errors()`)."""
    name, *rest = (str(part) for part in detail["loc"])
    where = f"HOMEFEED_{name.upper()}" + (f" (item {', '.join(rest)})" if rest else "")
    what = detail["msg"].removeprefix("Value error, ")
    return f"{where} is {detail['input']!r}: {what[0].lower()}{what[1:]}"


def _no_json(error: SettingsError) -> str:
    """Say which variable should hold JSON and does not; the error names the field."""
    variable = "HOMEFEED_" + "".join(re.findall(r'field "(\w+)"', str(error))).upper()
    return (
        f"{variable} is {os.environ.get(variable, '')!r}: expected JSON, as the list "
        f'["outbox", "smtp"] in HOMEFEED_ALERT_TRANSPORTS'
    )


MLFLOW_VIEW = "workflowType=machine_learning"
"""In an address of MLflow's pages: tables of runs and models, where it would show traces else."""
