"""The newest alerts in a workspace's outbox, and which transports lack them.

Tested in tests/pipelines/overview/test_status.py.
"""

from datetime import UTC, datetime

from pyarrow import fs

from pipelines import storage
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judged.alert import AlertReceipt
from pipelines.overview.facts import OutboxAlert
from pipelines.settings import Settings


def newest_alerts(
    workspace_uri: str, settings: Settings, num: int
) -> tuple[tuple[OutboxAlert, ...], int]:
    """Return the newest alerts, the newest first, and how many the outbox holds.

    Raises:
        HomefeedError: the storage failed.
    """
    uri = storage.join(workspace_uri, "outbox")
    filesystem, path = storage.open_filesystem(uri)
    with storage.translated_errors(uri, "listing"):
        entries = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    # The text is written once, the receipt again with each transport that takes the alert.
    texts = {entry.base_name.removesuffix(".txt"): entry.mtime_ns for entry in entries}
    receipts = [
        (texts.get(entry.base_name.removesuffix(".json"), entry.mtime_ns), entry.base_name)
        for entry in entries
        if entry.base_name.endswith(".json")
    ]
    receipts.sort(reverse=True)
    found = tuple(_alert(uri, *each, settings) for each in receipts[:num])
    return found, len(receipts)


def _alert(uri: str, written_ns: int, name: str, settings: Settings) -> OutboxAlert:
    written_at = datetime.fromtimestamp(written_ns / 1e9, UTC)
    place = storage.join(uri, name)
    kind, title = "not readable", name
    taken: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    try:
        receipt = storage.read_model(place, AlertReceipt, "delete it to send the alert again")
    except DataContractError:
        receipt = AlertReceipt(alert=None, delivered_to=())
    if receipt.alert is not None:
        kind, title, taken = receipt.alert.kind.value, receipt.alert.title, receipt.delivered_to
        asked = () if receipt.is_counted else settings.alert_transports
        lacking = tuple(name for name in asked if name not in taken)
    return OutboxAlert(
        written_at=written_at,
        kind=kind,
        title=title,
        delivered_to=taken,
        not_delivered_to=lacking,
        text_uri=f"{place.removesuffix('json')}txt",
    )
