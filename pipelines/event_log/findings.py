"""What a rule of the event log found, as a value: a reader raises the first, a check collects all.

So each rule is written once, as a function that gives findings. Not for the rules (`checks`,
`cross_rules`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from pipelines.contracts.errors import DataContractError


@dataclass(frozen=True)
class Finding:
    """One way in which a file, or the log as a whole, breaks the contract."""

    rule: str  # short id, such as 'known_before_it_happened'
    where: str  # the file, or '' where `problem` says it
    problem: str
    expected: str  # '' where `problem` says it, as of the remedy
    remedy: str
    table: str = ""
    column: str = ""
    row: int | None = None  # the first such row, from 0, of the rows that were looked at
    key: str = ""  # of that row, such as 'pin_id=7'
    value: str = ""  # found there
    num_rows: int = 1  # rows that break the rule
    day: date | None = None  # that it is about, where many days may have the same

    @property
    def message(self) -> str:
        """The finding in one sentence: where, what was found, what was expected, what to change."""
        where = f"{self.where}: " if self.where else ""
        expected = f"expected {self.expected}" if self.expected else ""
        return where + "; ".join(part for part in (self.problem, expected, self.remedy) if part)


def require_none(findings: Iterable[Finding]) -> None:
    """Raise the first finding, if there is one.

    Raises:
        DataContractError: a rule is broken.
    """
    for finding in findings:
        raise DataContractError(finding.message)
