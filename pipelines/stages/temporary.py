"""Where the temporary files of libraries lie: in a folder that is removed also after a kill.

MLflow makes temporary files when a model is saved and sent, and a process that is killed removes
none. Not for files that are moved into their place later: those lie in a scratch folder beside it
(`pipelines.storage.scratch_folder`). Tested in tests/pipelines/stages/test_faults_in_cycles.py.
"""

import contextlib
import tempfile
from collections.abc import Iterator

from pipelines import storage


@contextlib.contextmanager
def swept_temporary_files(near_uri: str) -> Iterator[None]:
    """Have this process's temporary files made in a scratch folder.

    What a killed process leaves there is removed when the next scratch folder is made beside it.
    """
    before = tempfile.tempdir
    with storage.scratch_folder(near_uri) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before
