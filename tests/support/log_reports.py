"""Reports of a checked log made by hand, for the tests of what is judged and shown."""

from collections.abc import Mapping


def day_of(
    shown: int | None = None,
    acted: Mapping[str, int] | None = None,
    labelled: Mapping[str, int] | None = None,
    **more: Mapping[str, int],
) -> dict[str, dict[str, int]]:
    """Return a day with so many impressions and actions by type; None: it has no such files."""
    counts: dict[str, dict[str, int]] = {"labelled": dict(labelled or {})}
    if shown is not None:
        counts["impressions"] = {"rows": shown}
    if acted is not None:
        counts["actions"] = dict(acted)
    return counts | {name: dict(found) for name, found in more.items()}
