"""Where the small JSON files lie that say what happened: manifests and failures, as URIs.

`pipelines.contracts.artifacts` draws the whole workspace. Not for reading or writing the files:
that is `pipelines.storage`. Tested in tests/pipelines/stages/test_runner.py.
"""

MANIFEST = "manifest.json"
"""Written last: a folder without this file is unfinished."""


def manifest_uri(run_uri: str, stage: str) -> str:
    """Return where a stage's manifest lies, which holds a `StageRecord`."""
    return f"{run_uri.rstrip('/')}/{stage}/{MANIFEST}"


def failure_uri(run_uri: str, stage: str) -> str:
    """Return where a stage's last failure lies, which holds a `StageFailure`."""
    return f"{run_uri.rstrip('/')}/{stage}/failure.json"


def lost_race_uri(run_uri: str, stage: str) -> str:
    """Return where an attempt that met another one at work says so, in a `StageFailure`."""
    return f"{run_uri.rstrip('/')}/{stage}/lost_race.json"


def stage_lease_uri(run_uri: str, stage: str) -> str:
    """Return the place whose lease an attempt of a stage holds."""
    return f"{run_uri.rstrip('/')}/{stage}/stage"


def listing_uri(run_uri: str) -> str:
    """Return where a run says what the event log's files were when its snapshot was built."""
    return f"{run_uri.rstrip('/')}/build_snapshot/event_log.json"


def snapshot_manifest_uri(snapshot_uri: str) -> str:
    """Return where a snapshot's manifest lies, which holds a `Snapshot`."""
    return f"{snapshot_uri.rstrip('/')}/{MANIFEST}"
