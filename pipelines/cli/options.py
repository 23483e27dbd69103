"""Options that several commands share, and how their text becomes a value.

Tested in tests/pipelines/cli/test_main.py.
"""

from datetime import UTC, datetime

from pipelines.contracts.errors import ConfigurationError


def parse_instant(text: str, option: str) -> datetime:
    """Return a day or an instant in ISO 8601; without a time zone it is in UTC.

    Args:
        text: As given on the command line.
        option: The option's name, for the message.

    Raises:
        ConfigurationError: the text is neither.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} is {text!r}; expected a day such as 2017-06-12"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
