"""Which code this is, and what it runs on: digests, a version for people, packages, processor.

The code digest covers what decides a model's quality (`MODEL_CODE`), as Python reads it: another
comment, docstring or layout is no other code. The version names the whole project. Neither is a
secret, and neither needs git.
"""

import ast
import contextlib
import functools
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError

IMAGE_VERSION = "HOMEFEED_IMAGE_VERSION"
"""Set in each image by its Dockerfile: the commit that the image was built from."""
DAG_VERSION, DAG_CODE = "HOMEFEED_DAG_VERSION", "HOMEFEED_DAG_CODE"
"""Set by the DAG for the containers that it starts: version and digest (sha256) of its code."""
ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages: a checkout, an unpacked archive or `site-packages`."""

_SNAPSHOT = ("build", "kernel", "pin_counts", "pins", "plan", "shard", "spill")
_CONTRACTS = ("config", "data_rules", "features", "hashing", "schemas", "snapshot_files", "time")
SNAPSHOT_CODE = (
    *("pipelines/event_log", "pipelines/snapshot/features"),
    *(f"pipelines/snapshot/{name}.py" for name in _SNAPSHOT),
    *(f"pipelines/contracts/{name}.py" for name in _CONTRACTS),
)
"""From the event log to a snapshot's rows."""
MODEL_CODE = (
    *SNAPSHOT_CODE,
    *(f"training/{name}" for name in ("bundle", "data", "fitting", "model")),
)
"""From the event log to a calibrated model. A recipe's own functions are part of the recipe."""
PROJECT_CODE = ("pipelines", "training", "validation")

PACKAGES = (
    *("duckdb", "great-expectations", "mlflow", "numpy", "pandas", "pyarrow", "pydantic"),
    *("pytorch-lightning", "safetensors", "scikit-learn", "scipy", "torch"),
)
"""Libraries whose version may change what a stage makes."""
_VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "MKL_ENABLE_INSTRUCTIONS"),
    *("OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA"),
)
"""Settings of the environment that choose kernels or the order of sums."""


class Environment(Frozen):
    """What ran a stage. With the same inputs it makes the same bytes on the same of these."""

    code_version: str  # Commit or version of the project, for people.
    code_digest: str  # Digest of the code that decides a model's quality.
    project_digest: str  # Digest of all the project's code.
    python: str  # Version of Python.
    packages: dict[str, str]  # Versions of `PACKAGES`; absent: not installed.
    processor: str  # Its name, as its maker gives it; kernels that round differently go by it.
    num_cores: int  # Cores that the process could use.
    gpus: tuple[str, ...] = ()  # Names of the machine's NVIDIA GPUs.
    variables: dict[str, str] = {}  # Which of `_VARIABLES` were set.


@functools.cache
def environment() -> Environment:
    """Return what this process runs on; nothing heavy is imported for it."""
    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    told = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Environment(
        code_version=code_version(),
        code_digest=code_digest(),
        project_digest=project_digest(),
        python=platform.python_version(),
        packages=packages,
        processor=told[1] if told else platform.machine(),
        num_cores=len(os.sched_getaffinity(0)),
        gpus=names_of_gpus(),
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )


def names_of_gpus(folder: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """Return the names of the machine's NVIDIA GPUs, as their driver gives them."""
    texts = [path.read_text() for path in sorted(folder.glob("*/information"))]
    return tuple(re.findall(r"^Model:\s*(.*?)\s*$", "\n".join(texts), re.MULTILINE))


@functools.cache
def code_digest() -> str:
    """Return the digest of the code that decides a model's quality, read once per process."""
    return digest_meaning(ROOT, MODEL_CODE)


@functools.cache
def project_digest() -> str:
    """Return the digest of all the project's code, read once per process."""
    return digest_code(ROOT, PROJECT_CODE)


def require_same_version(environment: Mapping[str, str]) -> None:
    """Compare this code with that of the DAG that started it, by digest: versions only name it.

    Two versions of the code may read each other's manifests and still mean different things by
    them. Nothing is compared where no DAG started it: outside of a container, and in an image that
    is of other code on purpose (`HOMEFEED_ANCHOR_CODE`).

    Raises:
        ConfigurationError: the two differ.
    """
    dag, own = environment.get(DAG_CODE, ""), project_digest()
    if dag in ("", own):
        return
    image, version = (environment.get(each) or "unknown" for each in (IMAGE_VERSION, DAG_VERSION))
    raise ConfigurationError(
        f"the image of this stage holds code version {image!r} ({IMAGE_VERSION}; its code's digest "
        f"is {own[:12]}), and the DAG that started it has code version {version!r} ({DAG_VERSION}; "
        f"digest {dag[:12]}); expected the same code; set HOMEFEED_STAGE_IMAGE to the trainer "
        f"image of version {version}, or bring Airflow to the image's version"
    )


def code_version(root: Path = ROOT) -> str:
    """Return the commit that an image was built from, or that of the checkout.

    It ends in '-dirty' where tracked files were changed. Where the code is in neither, or git is
    missing, it is that of the package with the first 12 digits of the digest of all its code, as in
    '0.1.0+code.1a2b3c4d5e6f'. A repository that happens to lie around the code, as around a virtual
    environment, is not asked.
    """
    if (image := os.environ.get(IMAGE_VERSION, "")) not in ("", "unknown"):
        return image
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        # Without git, or in a repository of another owner, the digest names the code.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            return found.stdout.strip()
    version = metadata.version("homefeed-retrain")
    return f"{version}+code.{digest_code(root, PROJECT_CODE)[:12]}"


def digest_code(root: Path, parts: tuple[str, ...]) -> str:
    """Return the sha256 (hex) over paths and contents of .py files, named or below folders."""
    digest = hashlib.sha256()
    for path in _files(root, parts):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def digest_meaning(root: Path, parts: tuple[str, ...]) -> str:
    """Return the sha256 (hex) over paths and syntax trees, without texts that nothing reads."""
    digest = hashlib.sha256()
    for path in _files(root, parts):
        tree = _WithoutDocstrings().visit(ast.parse(path.read_bytes()))
        digest.update(f"{path.relative_to(root).as_posix()} {ast.dump(tree)}\n".encode())
    return digest.hexdigest()


class _WithoutDocstrings(ast.NodeTransformer):
    """Leaves out the statements that are nothing but a text."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Return the statement, or None for a docstring."""
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _files(root: Path, parts: tuple[str, ...]) -> list[Path]:
    named = (root / part for part in parts)
    found = ([each] if each.is_file() else sorted(each.rglob("*.py")) for each in named)
    return [path for paths in found for path in paths]
