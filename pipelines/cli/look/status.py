"""`homefeed status`: champion, last verdicts, broken cycles, alerts, next date, addresses.

Tested in tests/pipelines/cli/look/test_status.py.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipelines.cli.look.printing import AsJson, say_result
from pipelines.settings import Settings


def status(
    num: Annotated[int, typer.Option(min=1, help="How many cycles and alerts at most.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Say what serves, what the last cycles came to, and when the next one is due.

    What can be found out is printed in any case. The exit code is 75 where MLflow or the workspace
    cannot be reached, 78 where a setting is wrong, and 0 otherwise.
    """
    from pipelines.overview.status import lines_of, read_status

    found, errors = read_status(Settings(), datetime.now(UTC), num)
    say_result(found, as_json, lambda: lines_of(found))
    if errors:
        raise errors[0]
