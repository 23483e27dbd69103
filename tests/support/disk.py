"""Notes the order in which files reach the disk and get their names, from the calls of a test."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def events_on_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with 'sync NAME' and 'name NAME', in order, from now on."""
    events: list[str] = []
    sync, link, rename = os.fsync, os.link, os.rename

    def note_sync(number: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{number}')).name}")
        sync(number)

    def note_name(call: Callable[..., None]) -> Callable[..., None]:
        def named(source: str, target: str, **options: object) -> None:
            call(source, target, **options)
            events.append(f"name {Path(target).name}")

        return named

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "link", note_name(link))
    monkeypatch.setattr(os, "rename", note_name(rename))
    monkeypatch.setattr(os, "replace", note_name(os.replace))
    return events
