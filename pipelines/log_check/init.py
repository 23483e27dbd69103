"""Writes an example adapter, a recipe and a README for somebody's own tables into an empty folder.

The files are examples to be changed, and belong to whoever asked for them. Not for writing a log:
that is `pipelines.sources`.
"""

from pathlib import Path

from pipelines.contracts.errors import ConfigurationError
from pipelines.storage import translated_errors

FILES = ("make_log.py", "recipe.yaml", "README.md")
_TEMPLATES = Path(__file__).parent / "templates"


def write_example(folder: Path) -> tuple[Path, ...]:
    """Write the files into a folder that is empty or missing; return their paths.

    Raises:
        ConfigurationError: the folder holds something, or cannot be written.
    """
    with translated_errors(folder.resolve().as_uri(), "writing to"):
        held = sorted(path.name for path in folder.iterdir())[:5] if folder.is_dir() else []
        if held or folder.is_file():
            raise ConfigurationError(
                f"{folder} {f'holds {held}' if held else 'is a file'}; expected an empty folder, "
                f"because nothing of yours is written over; name another one"
            )
        (folder / "tables").mkdir(parents=True)
        for name in FILES:
            (folder / name).write_text((_TEMPLATES / f"{name}.txt").read_text("utf-8"), "utf-8")
    return tuple(folder / name for name in FILES)
