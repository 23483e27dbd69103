"""Publish a snapshot: its files first, its manifest last, once for the same content.

Not for building: `pipelines.snapshot.build` makes the files.
"""

import logging
from pathlib import Path

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.storage import (
    exclusive_lock,
    exists,
    find_missing,
    publish_folder,
    read_model,
    write_model,
)

log = logging.getLogger(__name__)

PUBLISH_PATIENCE_S = 600.0
"""How long a builder waits for another one that publishes the same snapshot."""


def publish(snapshot: Snapshot, files: Path) -> Snapshot:
    """Publish a folder of files and then its manifest, or return what was published before.

    Two builders of the same content take turns, and the second one finds the manifest of the
    first. A folder without a manifest was left by a killed builder and is replaced, as is a folder
    that has lost a file since.

    Raises:
        RunInProgressError: another builder has published for longer than PUBLISH_PATIENCE_S.
    """
    manifest_uri = snapshot_manifest_uri(snapshot.uri)
    purpose = f"publishing snapshot {snapshot.digest[:16]}"
    with exclusive_lock(snapshot.uri, purpose, PUBLISH_PATIENCE_S):
        if exists(manifest_uri):
            published = read_model(manifest_uri, Snapshot)
            if not (missing := find_missing(published.places())):
                log.info("snapshot %s is already published", snapshot.digest[:16])
                return published
            log.warning("%s is missing or of another size; publishing again", missing[0])
        publish_folder(files, snapshot.uri)
        write_model(manifest_uri, snapshot)
        log.info("published %s: %d examples", snapshot.uri, snapshot.num_examples)
        return snapshot
