"""Searches files, databases and argument lists for passwords, plain or as base64."""

import base64
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from support.database_server import DatabaseServer, program


def forms_of(word: str) -> list[bytes]:
    """Return how a password may stand in a text.

    As base64 a word looks otherwise at each of three offsets; of each the part is taken that does
    not depend on what stands before and after.
    """
    found = [word.encode()]
    for offset in range(3):
        coded = base64.b64encode(b"." * offset + word.encode())
        found.append(coded[4 if offset else 0 : -4])
    return found


def found_in(words: Mapping[str, str], texts: Iterable[tuple[str, bytes]]) -> list[str]:
    """Return, for each text that holds a password, which one it is and where it stands."""
    forms = {name: forms_of(word) for name, word in words.items()}
    return [
        f"the password of {name} stands in {place}"
        for place, text in texts
        for name, each in forms.items()
        if any(form in text for form in each)
    ]


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Give the content of every file below a folder, and its name."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()


def dump_of(server: DatabaseServer, user: str) -> tuple[str, bytes]:
    """Return all that a user's database holds, as text."""
    command = [str(program("pg_dump")), "-h", "127.0.0.1", "-p", str(server.port), "-U", user, user]
    environment = os.environ | {"PGPASSWORD": server.passwords[user]}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return f"the database of {user}", done.stdout
