"""Refuses to run a stage from an image whose code is not the DAG's.

Two versions of the code may read each other's manifests and still mean different things by them.
What is compared is the digest of the code itself: the names of versions are told to people, and
say nothing where an image was built outside of a checkout, or from one with changes.
"""

from collections.abc import Mapping

from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.errors import ConfigurationError

IMAGE_VERSION = "HOMEFEED_IMAGE_VERSION"
"""Set in each image by its Dockerfile: the commit that the image was built from."""
DAG_VERSION, DAG_CODE = "HOMEFEED_DAG_VERSION", "HOMEFEED_DAG_CODE"
"""Set by the DAG for the containers that it starts: version and digest (sha256) of its code."""


def require_same_version(environment: Mapping[str, str]) -> None:
    """Compare this code with that of the DAG that started it.

    Nothing is compared where no DAG started it: outside of a container, and in an image that is of
    other code on purpose (`HOMEFEED_ANCHOR_CODE`).

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
