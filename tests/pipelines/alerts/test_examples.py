"""Each kind of alert in each transport, as a real server gets it, against a stored example.

To renew the examples, after a look at what has changed:

    HOMEFEED_RENEW_EXAMPLES=1 python -m pytest tests/pipelines/alerts/test_examples.py

then read `git diff tests/pipelines/alerts/examples` as if you were on call.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts.transports import deliver, entry_uri
from pipelines.contracts.alert import AlertKind
from pipelines.contracts.code_identity import DAG_VERSION
from pipelines.registry.history import Move
from pipelines.settings import Settings
from support.alert_servers import mail_server, use_apprise, use_slack, webhook
from support.desk import record_move
from support.example_alerts import example_alerts
from support.judgements import CHAMPION

FOLDER = Path(__file__).with_name("examples")
PARTS = ("smtp.headers.txt", "smtp.html", "slack.json", "apprise.json", "outbox.txt", "outbox.json")
"""Of the first alert of a kind; of others, which differ in words alone, there is `outbox.txt`."""
RENEWS = bool(os.environ.get("HOMEFEED_RENEW_EXAMPLES"))


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What each server got, by the name of the example's file."""
    place = tmp_path_factory.mktemp("examples")
    settings = Settings(
        workspace=str(place / "workspace"),
        event_log=str(place / "event_log"),
        alert_transports=("smtp", "slack", "apprise"),
        alert_email_to=("oncall@example.com", "lead@example.com"),
        reader_zone="Europe/Berlin",
        registered_model=CHAMPION.name,
        airflow_url="https://airflow.example.com",
        runbook_url="https://git.example.com/homefeed/blob/main/docs/runbook.md",
    )
    found: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch, mail_server(patch) as inbox, webhook() as hook:
        url, bodies = hook
        patch.setenv(DAG_VERSION, "1")  # commands name no installation
        use_slack(patch, url)
        use_apprise(patch, url)
        served = {"model": CHAMPION, "previous": None, "moved_at": CHAMPION.as_of}
        move = Move(kind="promotion", reason="It won.", **served)
        record_move(settings.workspace_uri, move, CHAMPION.name)
        for name, alert in example_alerts(place, settings).items():
            receipt = deliver(alert, settings)
            assert receipt.delivered_to == ("outbox", "smtp", "slack", "apprise")
            uri, mail = entry_uri(alert, settings), inbox.mails[-1]
            differing = ("Date", "Content-Type", "Message-ID")
            headers = [f"{name}: {text}\n" for name, text in mail.items() if name not in differing]
            (html,) = mail.iter_parts()
            texts = (
                "".join(headers),
                html.get_content().replace("\r\n", "\n"),
                *(to_json(body) for _, body in bodies[-2:]),
                storage.read_bytes(uri.removesuffix("json") + "txt").decode(),
                to_json(json.loads(storage.read_bytes(uri))),
            )
            told = dict(zip(PARTS, texts, strict=True))
            parts = PARTS if name == alert.kind.value else ("outbox.txt",)
            found |= {f"{name}.{part}": told[part] for part in parts}
    if RENEWS:
        for path in FOLDER.iterdir():
            path.unlink()
        for name, text in found.items():
            (FOLDER / name).write_text(text)
    yield found


def to_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_each_transport_gets_what_the_example_says(arrived: dict[str, str], name: str) -> None:
    assert arrived[name] == (FOLDER / name).read_text(), f"{name}: see this module's head"


def test_an_alert_is_read_at_a_glance(arrived: dict[str, str]) -> None:
    texts = {name: text for name, text in arrived.items() if name.endswith("outbox.txt")}
    long = {name for name, text in texts.items()
            if text.count("\n") > 12 or len(text.split()) > 150}  # fmt: skip
    assert texts and not long


def test_each_kind_has_an_example_in_each_transport_and_there_is_no_other(
    arrived: dict[str, str],
) -> None:
    assert {f"{kind.value}.{part}" for kind in AlertKind for part in PARTS} <= arrived.keys()
    assert {path.name for path in FOLDER.iterdir()} == arrived.keys()
