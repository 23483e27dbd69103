"""All that is wrong with a batch, in one message. Not for finding it: each check does that."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.contracts.errors import DataContractError

_MOST_SHOWN = 12


class Problems:
    """What was found wrong with one batch so far.

    Args:
        place: what to call the batch, such as 'impressions, batch 3'.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._found: list[str] = []

    def add(self, problem: str) -> None:
        """Note a problem: what was found, what was expected, what to change."""
        self._found.append(problem)

    def add_rows(
        self,
        column: str,
        is_bad: npt.NDArray[np.bool_],
        values: Any,
        expected: str,
        show: Callable[[Any], str] = repr,
    ) -> bool:
        """Note the rows that are marked, if any, by the first of them; return whether there are.

        Args:
            column: its name.
            is_bad: one mark per row.
            values: the column's values, for the message.
            expected: what was expected, and what to change.
            show: makes the text of a value.
        """
        if not is_bad.any():
            return False
        row = int(np.flatnonzero(is_bad)[0])
        self.add(
            f"column {column!r} is {show(values[row].as_py())} in row {row} ({int(is_bad.sum())} "
            f"such rows); expected {expected}"
        )
        return True

    def note(self, check: Callable[..., Any], *args: Any) -> Any:
        """Return what a check of the reader returns, or None and note what it raises."""
        try:
            return check(*args)
        except DataContractError as error:
            self.add(str(error).removeprefix(f"{self.place}: "))
            return None

    def __len__(self) -> int:
        """Return the number of problems."""
        return len(self._found)

    def refuse(self) -> None:
        """Raise for what was noted, if anything was.

        Raises:
            DataContractError: it names every problem; nothing of the batch is written.
        """
        if not self._found:
            return
        if len(self._found) == 1:
            raise DataContractError(f"{self.place}: {self._found[0]}")
        shown = self._found[:_MOST_SHOWN]
        text = " ".join(f"({number}) {problem}." for number, problem in enumerate(shown, 1))
        rest = len(self._found) - len(shown)
        more = f" And {rest} more." if rest else ""
        raise DataContractError(f"{self.place}: {len(self._found)} problems. {text}{more}")
