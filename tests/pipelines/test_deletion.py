"""What is deleted is gone, and whoever comes second finds nothing to complain of."""

from types import SimpleNamespace

import pytest

from pipelines import deletion, storage


@pytest.mark.parametrize("name", ["file", "folder"])
def test_of_two_that_delete_the_same_at_once_neither_fails(
    s3_uri: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = storage.join(s3_uri, name)
    for each in [uri] if name == "file" else [f"{uri}/a", f"{uri}/b"]:
        storage.write_bytes(each, b"x")
    filesystem, path = storage.open_filesystem(uri)
    looked: list[object] = []

    def look(asked: object) -> object:
        """Look, and let the other one delete all of it thereafter."""
        found = filesystem.get_file_info(asked)
        if not looked:
            looked.append(asked)
            monkeypatch.setattr(storage, "open_filesystem", opened)
            deletion.remove(uri)
            monkeypatch.setattr(storage, "open_filesystem", lambda _: (ours, path))
        return found

    opened = storage.open_filesystem
    deletes = {each: getattr(filesystem, each) for each in ("delete_file", "delete_dir")}
    ours = SimpleNamespace(get_file_info=look, **deletes)
    monkeypatch.setattr(storage, "open_filesystem", lambda _: (ours, path))
    deletion.remove(uri)
    assert looked and not storage.exists(uri)
