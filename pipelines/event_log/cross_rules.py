"""Rules that rows of several files break together, as findings whose words are the same everywhere.

The kernel meets them within a shard and raises; `pipelines.log_check` meets them in the whole log
and collects. Each has its own way to the offending rows. Not for one file (`checks`).
"""

from collections.abc import Iterator, Sequence

from pipelines.contracts.schemas import PIN_TIME
from pipelines.event_log.findings import Finding


def request_of_two_users(request_id: str, one: int, other: int, num_requests: int = 1) -> Finding:
    """Return what is said of a request whose impressions belong to two users."""
    return Finding(
        "request_of_two_users",
        "",
        f"impressions: request {request_id!r} belongs to users {one} and {other}",
        "one user per request",
        "make request_id unique",
        table="impressions",
        column="request_id",
        key=f"request_id={request_id}",
        value=f"users {one} and {other}",
        num_rows=num_requests,
    )


def action_before_request(
    pin_id: int, acted_at: int, request_id: str, impressed_at: int, num_actions: int
) -> Finding:
    """Return what is said of actions that happened before the request that they name."""
    return Finding(
        "action_before_request",
        "",
        f"actions: action on pin {pin_id} at {acted_at} names request {request_id!r}, which was "
        f"shown later, at {impressed_at} ({num_actions} such actions)",
        "acted_at >= impressed_at",
        "correct the clocks or the attribution",
        table="actions",
        column="acted_at",
        key=f"request_id={request_id}, pin_id={pin_id}",
        value=str(acted_at),
        num_rows=num_actions,
    )


def repeated_user_row(user_id: int, as_of: int, num_rows: int = 1) -> Finding:
    """Return what is said of a user with two rows of the same as_of."""
    return Finding(
        "repeated_user_row",
        "",
        f"users: user {user_id} has more than one row of as_of={as_of}",
        "one per (user_id, as_of)",
        "remove the repeated row",
        table="users",
        column="as_of",
        key=f"user_id={user_id}",
        value=str(as_of),
        num_rows=num_rows,
    )


def repeated_embedding(pin_id: int, version: str, num_rows: int) -> Finding:
    """Return what is said of a pin with two embeddings of one version."""
    return Finding(
        "repeated_embedding",
        "",
        f"pins: pin {pin_id} has more than one embedding of version {version!r} ({num_rows} such "
        f"rows)",
        "one per (pin_id, embedding_version)",
        "remove the repeated rows",
        table="pins",
        column="embedding_version",
        key=f"pin_id={pin_id}",
        value=version,
        num_rows=num_rows,
    )


def pin_times_in_some(with_times: Sequence[str], without: Sequence[str]) -> Iterator[Finding]:
    """Yield what is said where some files of the pins have the optional known_at, and some not."""
    if with_times and without:
        yield Finding(
            "pin_times_in_some",
            "",
            f"pins: {without[0]} has no column {PIN_TIME.name!r}, and {with_times[0]} has",
            "it in every file of the pins or in none",
            "add it to the older files (a time before the pin's first impression keeps the pin "
            "known as it was), or leave it out",
            table="pins",
            column=PIN_TIME.name,
            num_rows=len(without),
        )


def missing_version(uri: str, version: str, found: Sequence[str]) -> Finding:
    """Return what is said of an embedding version that no pin has."""
    return Finding(
        "missing_version",
        "",
        f"pins: no embedding of version {version!r} at {uri}; found the versions {list(found)}",
        f"rows of version {version!r}",
        "add that version to the table or set snapshot.embedding_version in the recipe",
        table="pins",
        column="embedding_version",
        value=", ".join(found),
    )


def pins_without_embedding(
    missing: Sequence[int], num_missing: int, num_wanted: int, version: str
) -> Finding:
    """Return what is said of pins that were shown or acted upon and have no embedding."""
    return Finding(
        "pin_without_embedding",
        "",
        f"pins: {num_missing} of {num_wanted} pins in the impressions and actions have no "
        f"embedding of version {version!r}, first: {', '.join(map(str, missing[:5]))}",
        "one for each",
        "fold these pins into the version's basis and add their rows",
        table="pins",
        column="pin_id",
        key=f"pin_id={missing[0]}",
        num_rows=num_missing,
    )
