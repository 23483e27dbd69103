"""No address that is shown holds a password."""

import pytest

from pipelines.overview.addresses import addresses_of, without_password
from pipelines.settings import Settings


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://127.0.0.1:5000/a?b#c", "http://127.0.0.1:5000/a?b#c"),
        ("https://me:secret@host:5000/x", "https://***@host:5000/x"),
        ("https://token@host", "https://***@host"),
        ("http://me:secret@[broken", "http://***@[broken"),
        ("http://me:sec/ret@host", "http://***@host"),
        ("('http://me:secret@host', 1)", "('http://***@host', 1)"),
        ("file:///a@b/c", "file:///a@b/c"),
    ],
)
def test_user_and_password_are_left_out(address: str, shown: str) -> None:
    assert without_password(address) == shown


def test_all_addresses_are_shown_so() -> None:
    account = "https://me:secret@host"
    shown = addresses_of(Settings(tracking_uri=account, airflow_url=account))
    assert shown["Airflow"] == "https://host/dags/homefeed_retrain"
    listed = "experiments?experimentSearchFilter=homefeed_retrain&workflowType=machine_learning"
    assert shown["MLflow"] == f"https://***@host/#/{listed}"
    assert "secret" not in str(shown)
