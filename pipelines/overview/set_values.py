"""Which settings differ from their defaults, without their secrets; names that are no setting.

Tested in tests/pipelines/overview/test_doctor.py.
"""

import difflib
import os
import re
from collections.abc import Iterator

from pipelines.overview.addresses import without_password
from pipelines.overview.diagnosis import Setting
from pipelines.settings import Settings

_PREFIX = "HOMEFEED_"
_SECRET = re.compile(r"secret|passw|token|key|credential", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"([\w.-]*(?:secret|passw|token|key|credential)[\w.-]*)=[^\s'\"]+", re.IGNORECASE
)
"""An option of a command or of Java that is given a secret."""
_PLAIN = ("home", "event_log", "workspace", "recipe")
"""Settings whose own check refuses keys in them."""
_ALIKE = 0.85
"""How like a setting's name another name must be to be taken for a slip of the pen."""


def differing(settings: Settings) -> tuple[Setting, ...]:
    """Return the settings that differ from their defaults."""
    found = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if value != field.default:
            found.append(Setting(name=_PREFIX + name.upper(), value=_shown(name, value)))
    return tuple(found)


def _shown(name: str, value: object) -> str:
    if isinstance(value, dict):
        value = {key: "***" if _SECRET.search(key) else each for key, each in value.items()}
    if name in _PLAIN:
        return str(value)
    return _ASSIGNED.sub(r"\1=***", without_password(str(value)))


def without_secrets(message: str) -> str:
    """Return a message about the environment without the values that may hold a secret."""
    for name, value in os.environ.items():
        if name.startswith(_PREFIX) and (_SECRET.search(value) or "@" in value):
            message = message.replace(repr(value), "'***'")
    return without_password(message)


def slips() -> Iterator[str]:
    """Yield a sentence for each variable that looks like a setting and is passed over."""
    known = [_PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            for meant in difflib.get_close_matches(name, known, 1, _ALIKE):
                yield f"{name} is set and is no setting; rename it if {meant} is meant"
