"""Airflow's own table of questions, and the route through which a task puts one.

A task instance that is cleared or tried again gets a new id, and its question's row follows it.
"""

import uuid
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.api_fastapi.execution_api.datamodels.hitl import HITLDetailRequest
from airflow.api_fastapi.execution_api.routes.hitl import upsert_hitl_detail
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.api.datamodels import _generated as of_client
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload, HITLDetailRequestResult
from sqlalchemy.orm import Session

TASKS = TaskInstance.__table__


class Questions:
    """The questions of one task instance in a database of its own.

    Args:
        folder: Where the database lies.
        patch: Makes tasks of this process send what they ask here.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.engine = sa.create_engine(f"sqlite:///{folder / 'questions.db'}")
        tables = [TASKS, DagRun.__table__, HITLDetail.__table__]  # a row is read with its run
        Base.metadata.create_all(self.engine, tables=tables)
        self.ti_id, self.try_number = uuid.uuid4(), 1
        with self.engine.begin() as connection:
            connection.execute(TASKS.insert().values(id=self.ti_id, **_required_values()))
        patch.setattr(task_runner, "SUPERVISOR_COMMS", self, raising=False)

    def send(self, msg: CreateHITLDetailPayload) -> HITLDetailRequestResult:
        """Put a question as the supervisor does for a task, and return what it hands back."""
        with Session(self.engine) as session:
            request = HITLDetailRequest.model_validate_json(msg.model_dump_json(exclude={"type"}))
            there = upsert_hitl_detail(msg.ti_id, request, session).model_dump_json()
            session.commit()
        found = of_client.HITLDetailRequest.model_validate_json(there)
        return HITLDetailRequestResult.from_api_response(found)

    def clear(self) -> None:
        """Begin the task anew, as Airflow does where it is cleared or tried again."""
        before, self.ti_id, self.try_number = self.ti_id, uuid.uuid4(), self.try_number + 1
        with self.engine.connect() as connection:
            connection.execute(sa.text("PRAGMA foreign_keys=ON"))
            connection.execute(TASKS.update().where(TASKS.c.id == before).values(id=self.ti_id))
            connection.commit()

    def shown(self) -> Any:
        """Return the row that people see; None where nothing was asked."""
        row = HITLDetail.__table__
        with self.engine.connect() as connection:
            return connection.execute(sa.select(row).where(row.c.ti_id == self.ti_id)).first()

    def answer(self, option: str, by: str, at: datetime, **said: Any) -> dict[str, Any]:
        """Answer what is shown as a person does, and return what Airflow hands to the task."""
        with Session(self.engine) as session:
            row = session.get_one(HITLDetail, self.ti_id)
            row.responded_at, row.chosen_options = at, [option]
            row.responded_by = {"id": by, "name": by}
            row.params_input = {name: each["value"] for name, each in row.params.items()} | said
            event = row.as_resume_event_payload()
            session.commit()
        return event

    def task_instance(self, left: dict[str, Any]) -> SimpleNamespace:
        """Return what a task's context says of its instance.

        Args:
            left: Gets the XComs that the task leaves.
        """
        return SimpleNamespace(
            id=self.ti_id, try_number=self.try_number, xcom_push=left.__setitem__
        )


def _required_values() -> dict[str, Any]:
    """Return something for each column of a task instance that must not be empty."""
    values: dict[str, Any] = {}
    for column in TASKS.columns:
        if not column.nullable and column.name not in ("id", "executor_config"):
            is_text = isinstance(column.type, sa.String | sa.Text)
            values[column.name] = "x" if is_text else 0
            if "JSON" in type(column.type).__name__.upper():
                values[column.name] = {}
    return values
