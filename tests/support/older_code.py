"""The project as it was before some changes, kept in a workspace as accepted code is."""

import shutil
from pathlib import Path

from pipelines import storage
from pipelines.contracts.code_identity import (
    MODEL_CODE,
    PROJECT_CODE,
    ROOT,
    code_digest,
    digest_meaning,
)
from pipelines.registry import accepted_code

Change = tuple[str, str, str]
"""A file, a text in it, and what stood there before."""
EQUAL: Change = ("training/model/loss.py", "losses_CH).sum() /", "losses_CH).sum() / 1 /")
OTHER: Change = (
    "training/fitting/lightning_module.py",
    *("_WEIGHTS_SALT, _DROPOUT_SALT = 201,", "_WEIGHTS_SALT, _DROPOUT_SALT = 301,"),
)
KERNEL: Change = (
    "pipelines/snapshot/features/count.py",
    *("_log1p(seen.pin_touches.count)", "_log1p(2 * seen.pin_touches.count)"),
)
FORWARD: Change = ("training/model/matches.py", "RECENCY_DAYS = 14.0", "RECENCY_DAYS = 2.0")
SCHEMA: Change = ("pipelines/contracts/base.py", "return 1 + len(cls.upgrades)", "return 0")


def keep_older_code(workspace_uri: str, folder: Path, *changes: Change) -> str:
    """Keep the project as it was before some changes; return that code's digest."""
    for package in PROJECT_CODE:
        shutil.copytree(ROOT / package, folder / package)
    for file, now, before in changes:
        text = (folder / file).read_text()
        assert text.count(now) == 1
        (folder / file).write_text(text.replace(now, before))
    accepted = digest_meaning(folder, MODEL_CODE)
    assert accepted != code_digest()
    accepted_code.keep(workspace_uri)
    ours, place = (accepted_code.place_of(workspace_uri, d) for d in (code_digest(), accepted))
    name, content = accepted_code.make_wheel(folder)
    storage.write_bytes(storage.join(place, name), content)
    pins = storage.read_bytes(storage.join(ours, accepted_code.PINS))
    storage.write_bytes(storage.join(place, accepted_code.PINS), pins)
    return accepted
