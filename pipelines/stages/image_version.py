"""Refuses to run a stage from an image whose code is not the DAG's.

Two versions of the code may read each other's manifests and still mean different things by them.
Tested in tests/pipelines/stages/test_image_version.py.
"""

from collections.abc import Mapping

from pipelines.contracts.errors import ConfigurationError

IMAGE_VERSION = "HOMEFEED_IMAGE_VERSION"
"""Set in each image by its Dockerfile: the commit that the image was built from."""
DAG_VERSION = "HOMEFEED_DAG_VERSION"
"""Set by the DAG for the containers that it starts: the version of its own code."""
_UNKNOWN = ("", "unknown")


def require_same_version(environment: Mapping[str, str]) -> None:
    """Compare the version of this image with that of the DAG that started it.

    Nothing is compared where either is not known: outside of a container, or in an image that was
    built without CODE_VERSION. A version that is only a digest of code (`0.1.0+code...`) is not
    known either: a commit cannot be compared with it.

    Raises:
        ConfigurationError: both are known and they differ.
    """
    image, dag = environment.get(IMAGE_VERSION, ""), environment.get(DAG_VERSION, "")
    if image == dag or not _is_known(image) or not _is_known(dag):
        return
    raise ConfigurationError(
        f"the image of this stage holds code version {image!r} ({IMAGE_VERSION}), and the DAG that "
        f"started it has code version {dag!r} ({DAG_VERSION}); expected the same; set "
        f"HOMEFEED_STAGE_IMAGE to the trainer image of version {dag}, or bring Airflow to the "
        f"image's version"
    )


def _is_known(version: str) -> bool:
    return version not in _UNKNOWN and "+code." not in version
