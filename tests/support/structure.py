"""Measures of the project's structure, for `make structure` and docs/architecture.md.

Run as a script it prints every measure beside its bound and exits 1 if one is broken. Import
direction and cycles are import-linter's (`lint-imports`), docstrings are ruff's.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("dags", "pipelines", "training", "validation")
MAX_MODULES_PER_FOLDER = 15
MAX_MEDIAN_FILE_LINES = 150
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

_NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Measure:
    """One number, the place where it was found, and the bound that it must not exceed."""

    name: str
    value: float
    bound: float | None
    where: str = ""

    @property
    def is_met(self) -> bool:
        return self.bound is None or self.value <= self.bound

    def __str__(self) -> str:
        bound = "" if self.bound is None else f", at most {self.bound:,}"
        where = f" ({self.where})" if self.where else ""
        return f"{'ok ' if self.is_met else 'NO '} {self.name}: {self.value:,}{where}{bound}"


def measure(root: Path) -> list[Measure]:
    """Return the measures of all code outside tests below the project's root."""
    files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in files}
    sizes = {name: text.count("\n") for name, text in texts.items() if "__init__" not in name}
    longest = max(sizes, key=sizes.__getitem__)
    modules = Counter(Path(name).parent.as_posix() for name in sizes)
    [(fullest, num_modules)] = modules.most_common(1)
    function_lines, function = max(
        (found for name, text in texts.items() for found in _functions(name, text)),
        default=(0, ""),
    )
    num_code_lines = sum(len(_code_lines(text)) for text in texts.values())
    return [
        Measure("modules in the fullest folder", num_modules, MAX_MODULES_PER_FOLDER, fullest),
        Measure("median lines of a file", statistics.median(sizes.values()), MAX_MEDIAN_FILE_LINES),
        Measure("lines of the longest file", sizes[longest], MAX_FILE_LINES, longest),
        Measure("lines of the longest function", function_lines, MAX_FUNCTION_LINES, function),
        Measure("lines of code without comments, docstrings and blanks", num_code_lines, None),
    ]


def _functions(name: str, text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.end_lineno - node.lineno + 1, f"{name}: {node.name}"


def _code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that hold code; a string that stands alone is none."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str) and node.end_lineno is not None:
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return lines


if __name__ == "__main__":
    measures = measure(Path(__file__).resolve().parents[2])
    sys.stdout.write("".join(f"{found}\n" for found in measures))
    sys.exit(0 if all(found.is_met for found in measures) else 1)
