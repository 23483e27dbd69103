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
    receipts = [entry for entry in entries if entry.base_name.endswith(".json")]
    receipts.sort(key=lambda entry: (entry.mtime_ns, entry.base_name), reverse=True)
    found = tuple(_alert(uri, entry, settings) for entry in receipts[:num])
    return found, len(receipts)


def _alert(uri: str, entry: fs.FileInfo, settings: Settings) -> OutboxAlert:
    written_at = datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC)
    place = storage.join(uri, entry.base_name)
    kind, title = "not readable", entry.base_name
    taken: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    try:
        receipt = storage.read_model(place, AlertReceipt, "delete it to send the alert again")
    except DataContractError:
        receipt = AlertReceipt(alert=None, delivered_to=())
    if receipt.alert is not None:
        kind, title, taken = receipt.alert.kind.value, receipt.alert.title, receipt.delivered_to
        lacking = tuple(name for name in settings.alert_transports if name not in taken)
    return OutboxAlert(
        written_at=written_at,
        kind=kind,
        title=title,
        delivered_to=taken,
        not_delivered_to=lacking,
        text_uri=f"{place.removesuffix('json')}txt",
    )
