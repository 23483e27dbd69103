"""Publish a snapshot: its files first, its manifest last, once for the same content.

Not for building: `pipelines.snapshot.build` makes the files.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.snapshot_files import verify_files
from pipelines.storage import (
    exclusive_lock,
    exists,
    local_copy,
    publish_folder,
    read_model,
    write_model,
)

log = logging.getLogger(__name__)

PUBLISH_PATIENCE_S = 600.0
"""How long a builder waits for another one that publishes the same snapshot."""


def publish(snapshot: Snapshot, files: Path, bring_others: Callable[[str], None]) -> Snapshot:
    """Publish a folder of files and then its manifest, unless the same content is there already.

    What lies elsewhere is brought first, by a function that is told the snapshot's URI.

    What is returned is the snapshot as it was built now. The files are the same, and the manifest
    that lies beside them may differ in what was left out, such as the number of repeated rows.

    Two builders of the same content take turns, and the second one finds the manifest of the
    first. A folder without a manifest was left by a killed builder and is replaced, as is a folder
    whose files are not what its manifest says.

    Raises:
        RunInProgressError: another builder has published for longer than PUBLISH_PATIENCE_S.
    """
    manifest_uri = snapshot_manifest_uri(snapshot.uri)
    purpose = f"publishing snapshot {snapshot.digest[:16]}"
    with exclusive_lock(snapshot.uri, purpose, PUBLISH_PATIENCE_S):
        if exists(manifest_uri):
            try:
                read_model(manifest_uri, Snapshot)
                with local_copy(snapshot.uri) as folder:
                    verify_files(snapshot, folder)
                log.info("snapshot %s is already published", snapshot.digest[:16])
                return snapshot
            except DataContractError as error:
                log.warning("%s; what was built now takes its place", error)
        bring_others(snapshot.uri)
        publish_folder(files, snapshot.uri)
        write_model(manifest_uri, snapshot)
        log.info("published %s: %d examples", snapshot.uri, snapshot.num_examples)
        return snapshot
