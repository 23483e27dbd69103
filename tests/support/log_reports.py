"""Reports of a checked log made by hand, for the tests of what is judged and shown."""

from collections.abc import Mapping


def day_of(
    shown: int | None = None,
    acted: Mapping[str, int] | None = None,
    labelled: Mapping[str, int] | None = None,
    **more: Mapping[str, int],
) -> dict[str, dict[str, int]]:
    """Return a day with so many impressions and actions by type; None: it has no such files."""
    of = {"impressions": shown, "actions": None if acted is None else sum(acted.values())}
    counts = {"rows": {table: num for table, num in of.items() if num is not None}}
    counts |= {"labelled": dict(labelled or {}), "actions": dict(acted or {})}
    return counts | {name: dict(found) for name, found in more.items()}
