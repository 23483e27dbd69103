"""Where things run: URIs, names, alert transports. Read from HOMEFEED_* environment variables.

A process reads them once, at its door: a command's callback, a stage's start, a DAG file, a task or
callback of Airflow's. Secrets are not here: they come from Airflow connections. docs/settings.md is
made from the fields' docstrings (tests/support/settings_page.py).
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from pipelines.contracts.artifacts import MAX_DEVICES, MAX_NODES, RunRequest
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.stage_table import HEAVY, Resources
from pipelines.places.plain_uri import require_plain, to_uri

DAG_ID = "homefeed_retrain"
MLFLOW_VIEW = "workflowType=machine_learning"
"""In an address of MLflow's pages: tables of runs and models, where it would show traces else."""
RUN_LIST = "homefeed"
"""In an address of MLflow's list of runs: the view of ours, with what is worth reading of a run."""
_UNSHOWN = ("HOMEFEED_RUNBOOK_URL", "HOMEFEED_SPARK_OPTIONS")
"""Settings that may hold a login or a key where they are wrong, which no message repeats."""
HeavyStage = Annotated[str, Field(pattern=f"^({'|'.join(HEAVY)})$")]
Address = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""A line break would begin another header of the mail."""


class Settings(BaseSettings):
    """One deployment's places. Every field is an environment variable HOMEFEED_<NAME>.

    A variable that is empty counts as not set.
    """

    model_config = SettingsConfigDict(
        env_prefix="HOMEFEED_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    home: str = ".homefeed"
    """Local folder for everything below."""
    event_log: str = ""
    """Event log URI; <home>/event_log if empty."""
    workspace: str = ""
    """Runs, snapshots, history; <home>/workspace."""
    umask: str = Field("077", pattern=r"^0?[0-7]{3}$")
    """What is written to a disk may be read by: 077 its owner, 027 the group, 022 all."""
    tracking_uri: str = "http://127.0.0.1:5000"
    """MLflow tracking and registry server."""
    experiment: str = "homefeed_retrain"
    """MLflow experiment."""
    registered_model: str = Field("homefeed_ranker", pattern=r"^\w[\w .-]{0,199}$")
    """MLflow registered model: letters, digits, spaces, _ . and -, no / and no :"""
    recipe: str = "completejourney"
    """Default recipe of a run: a name, module:function, or a YAML file."""
    recipe_packages: tuple[str, ...] = ()
    """JSON list of packages whose functions a triggered run may name."""
    airflow_url: str = "http://127.0.0.1:8080"
    """For links in alerts."""
    alert_transports: tuple[Literal["outbox", "smtp", "slack", "apprise"], ...] = ("outbox",)
    """JSON list, e.g. ["smtp", "slack"]."""
    alert_email_to: tuple[Address, ...] = ()
    """JSON list of addresses."""
    reader_zone: ZoneInfo = ZoneInfo("UTC")
    """IANA name of the zone that alerts tell the time in besides UTC."""
    runbook_url: str = Field("", pattern=r"^((https?://[^\s/#@]+(/[^\s#@]*)?|file:///[^\s#@]+)?)$")
    """Page of docs/runbook.md, for the links in alerts; without #section or login."""
    accelerator: Literal["cpu", "gpu"] = "cpu"
    """Hardware that Airflow's runs train on."""
    devices: int = Field(1, ge=1, le=MAX_DEVICES)
    """Training processes of Airflow's runs on each machine, one for each GPU."""
    nodes: int = Field(1, ge=1, le=MAX_NODES)
    """Machines that train together; more than one needs the runner kubernetes."""
    spark_options: dict[str, str] = {}
    """JSON of Spark options; where there are any, Spark builds the snapshots, to the same bytes,
    e.g. {"spark.master": "spark://host:7077"}."""
    stage_runner: Literal["bash", "docker", "kubernetes"] = "bash"
    """Which Airflow operator runs the heavy stages."""
    stage_image: str = ""
    """Image for docker and kubernetes runners."""
    command: str = "homefeed"
    """The command line in the worker's shell."""
    stage_resources: dict[HeavyStage, Resources] = {}
    """JSON by stage; the others have those of `stage_table`. A snapshot's builder takes half of its
    memory, or of what the machine has."""
    work_folder: str = ""
    """Where trainings keep checkpoints if the workspace is a store."""
    docker_network: str = ""
    """Network of the stages' containers."""
    pod_template: str = ""
    """File with the pod that a stage's pod begins as; for kubernetes."""
    anchor_code: str = ""
    """The code that the recipe was accepted by, for train_anchor: its image, or under the runner
    bash its command line."""
    cadence_days: float = Field(14.0, gt=0, le=3650)
    """Days between scheduled cycles."""
    schedule_start: str = "2026-01-05T06:00:00+00:00"
    """A cycle's start; all others follow it."""
    early_retrains: int = Field(0, ge=0, le=31)
    """How many cycles a month homefeed_monitor triggers for a champion that regressed."""
    keep_days: float = Field(180.0, ge=1)
    """Age at which `homefeed gc` deletes runs, snapshots, work folders, alerts and models that
    nothing needs; what served within it is needed."""
    rollback_models: int = Field(3, ge=1)
    """Predecessors of the champion that are kept, whatever the age."""
    core_hour_price: float = Field(0.0, ge=0)
    """An hour of a core, in any currency: the home page says what cycles cost."""
    gpu_hour_price: float = Field(0.0, ge=0)
    """An hour of a GPU."""

    def __init__(self, **values: Any) -> None:
        """Read the environment.

        Raises:
            ConfigurationError: a variable does not hold what it may; the message names all of them.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            found = "; ".join(_problem(detail) for detail in error.errors(include_url=False))
        except SettingsError as error:
            found = f'{error}, the variable HOMEFEED_<FIELD>: expected JSON, as ["outbox", "smtp"]'
        else:
            return
        raise ConfigurationError(f"{found}; correct the environment")

    @field_validator("home", "event_log", "workspace", "recipe")
    @classmethod
    def _holds_no_keys(cls, value: str, info: ValidationInfo) -> str:
        """Refuse keys before any message, alert or command repeats the place."""
        require_plain(value, f"HOMEFEED_{str(info.field_name).upper()}")
        return value

    def image_of(self, stage: str) -> str:
        """Return the container image of one stage."""
        is_own = stage == "train_anchor" and self.stage_runner != "bash"
        return (is_own and self.anchor_code) or self.stage_image

    def command_of(self, stage: str) -> str:
        """Return how one stage's command line is called."""
        is_own = stage == "train_anchor" and self.stage_runner == "bash"
        return (is_own and self.anchor_code) or self.command

    def resources_of(self, stage: str) -> Resources:
        """Return what the container of one heavy stage asks for."""
        return self.stage_resources.get(stage, HEAVY[stage])

    @property
    def event_log_location(self) -> str:
        """Event log path or URI."""
        return self.event_log or f"{self.home}/event_log"

    @property
    def event_log_uri(self) -> str:
        """Event log URI."""
        return to_uri(self.event_log_location)

    @property
    def workspace_location(self) -> str:
        """Workspace path or URI."""
        return self.workspace or f"{self.home}/workspace"

    @property
    def workspace_uri(self) -> str:
        """Workspace URI."""
        return to_uri(self.workspace_location)

    def scheduled(
        self, trigger: str, now: datetime, as_of: datetime | None = None, recipe: str = ""
    ) -> RunRequest:
        """Return what the schedule would ask for; `recipe` is this deployment's by default."""
        return RunRequest(
            recipe=recipe or self.recipe,
            as_of=as_of,
            now=now,
            may_promote=True,
            num_devices=self.devices,
            num_nodes=self.nodes,
            accelerator=self.accelerator,
            trigger=trigger,
        )


def _problem(detail: Any) -> str:
    """Say in one line what is wrong with one variable (`ValidationError.errors()`)."""
    name, *rest = (str(part) for part in detail["loc"])
    where = f"HOMEFEED_{name.upper()}" + (f" (item {', '.join(rest)})" if rest else "")
    value = "hidden" if f"HOMEFEED_{name.upper()}" in _UNSHOWN else repr(detail["input"])
    meant = " ".join(str(Settings.model_fields[name].description).split()).rstrip(".")
    return f"{where} is {value}: {detail['msg'][0].lower()}{detail['msg'][1:]} ({meant})"
