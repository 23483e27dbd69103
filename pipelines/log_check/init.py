"""Writes a mapping and a README for somebody's own tables into an empty folder.

The files are theirs to be changed. Not for writing a log: that is `pipelines.sources`.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.contracts.errors import ConfigurationError
from pipelines.storage import translated_errors

FILES = ("mapping.yaml", "README.md")
_TEMPLATES = Path(__file__).parent / "templates"


def write_example(folder: Path, tables: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Write the files into a folder that is empty or missing; return their paths.

    Of tables, the mapping says what was found in them; without any, it is an example.

    Raises:
        ConfigurationError: the folder holds something, or cannot be written, or a table cannot be
            read.
    """
    from pipelines.sources.mapping.guess import guess

    texts = {name: (_TEMPLATES / f"{name}.txt").read_text("utf-8") for name in FILES}
    with translated_errors(folder.resolve().as_uri(), "writing to"):
        held = sorted(path.name for path in folder.iterdir())[:5] if folder.is_dir() else []
        if held or folder.is_file():
            raise ConfigurationError(
                f"{folder} {f'holds {held}' if held else 'is a file'}; expected an empty folder, "
                f"because nothing of yours is written over; name another one"
            )
        if tables:
            with tempfile.TemporaryDirectory(prefix="homefeed-init-") as scratch:
                texts["mapping.yaml"] = guess(tables, Path(scratch))
        (folder / "tables").mkdir(parents=True)
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
    return tuple(folder / name for name in FILES)
