"""`homefeed doctor`: what is set, reachable, writable and installed, and what is wrong.

Tested in tests/pipelines/cli/look/test_doctor.py.
"""

from datetime import UTC, datetime

from pipelines.cli.look.printing import AsJson, say_result
from pipelines.contracts.errors import ConfigurationError


def doctor(as_json: AsJson = False) -> None:
    """Say what is set, reachable, writable and installed here, and what is wrong.

    The exit code is 0 where nothing is wrong, and 78 otherwise. Secrets are never shown.
    """
    from pipelines.overview.doctor import diagnose, lines_of

    found = diagnose(datetime.now(UTC))
    say_result(found, as_json, lambda: lines_of(found))
    if found.wrong:
        raise ConfigurationError(
            f"{len(found.wrong)} thing(s) are wrong here; change what is told above, then run "
            f"`homefeed doctor` again"
        )
