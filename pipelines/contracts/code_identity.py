"""Which code this is: a digest of what decides a model, and a version for people.

The digest covers `training/` and `pipelines/contracts/`, the only code that training and scoring
import. Two commits that differ elsewhere, in the documentation for example, have the same digest.
The version names the whole project. Neither is a secret, and neither needs git.
"""

import functools
import hashlib
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages: a checkout, an unpacked archive or `site-packages`."""

MODEL_CODE = ("training", "pipelines/contracts")
PROJECT_CODE = ("pipelines", "training", "validation")


@functools.cache
def code_digest() -> str:
    """Return the digest of the code that training and scoring import, read once per process."""
    return digest_code(ROOT, MODEL_CODE)


def code_version(root: Path = ROOT) -> str:
    """Return the commit of the checkout, with '-dirty' where tracked files were changed.

    Where the code is no checkout, or git is missing, the version is that of the package with the
    first 12 digits of the digest of all its code, as in '0.1.0+code.1a2b3c4d5e6f': the package's
    own version says nothing about changes between two releases. A repository that happens to lie
    around the code, as around a virtual environment, is not asked.
    """
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            return found.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass  # There is no git, or the repository has another owner: the digest names the code.
    version = metadata.version("homefeed-retrain")
    return f"{version}+code.{digest_code(root, PROJECT_CODE)[:12]}"


def digest_code(root: Path, folders: tuple[str, ...]) -> str:
    """Return the sha256 (hex) over paths and contents of the .py files below some folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
