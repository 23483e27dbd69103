"""The import-direction check: who may import whom, as the design's table says.

Run as a script it lists every breach and exits 1.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

OURS = ("dags", "pipelines", "training", "validation", "tests")

ANYWHERE = {
    "pipelines/contracts": ("pipelines.contracts",),
    "training": ("pipelines.contracts", "training"),
    "validation": (
        "pipelines.contracts",
        "validation",
        "training.bundle.split_scores",
    ),
    "pipelines": ("pipelines", "training", "validation"),
    "dags": ("pipelines", "training", "validation"),
}
"""Prefixes a folder may import at all, the most specific folder first."""

AT_TOP = {"pipelines": ("pipelines",), "dags": ("pipelines",)}
"""Prefixes a folder may import outside a function, where that is narrower."""


def breaches(root: Path) -> list[str]:
    """Return one line per forbidden import below the project's root."""
    found = []
    for folder in ANYWHERE:
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root).as_posix()
            if _folder_of(relative) == folder:
                found += _breaches_in(path, relative, folder)
    return found


def _folder_of(relative: str) -> str:
    return next(folder for folder in ANYWHERE if relative.startswith(folder + "/"))


def _breaches_in(path: Path, relative: str, folder: str) -> Iterator[str]:
    for module, line, is_at_top in _imports(ast.parse(path.read_text())):
        if module.split(".")[0] not in OURS:
            continue
        allowed = AT_TOP.get(folder, ANYWHERE[folder]) if is_at_top else ANYWHERE[folder]
        if not any(module == prefix or module.startswith(prefix + ".") for prefix in allowed):
            where = "at the top of the file" if is_at_top else "inside a function"
            yield f"{relative}:{line}: imports {module} {where}; {folder}/ may import {allowed}"


def _imports(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Yield (module, line, is_at_top); an import under TYPE_CHECKING counts like one in a body."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if lazy or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            inside.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, node not in inside
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                yield name, node.lineno, node not in inside


if __name__ == "__main__":
    problems = breaches(Path(__file__).resolve().parents[2])
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.exit(1 if problems else 0)
