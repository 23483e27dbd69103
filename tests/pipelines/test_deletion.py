"""What is deleted is gone, and whoever comes second finds nothing to complain of."""

from types import SimpleNamespace

import pytest

from pipelines import deletion, storage


@pytest.mark.parametrize("name", ["file", "folder"])
def test_all_below_it_goes_alone_and_of_two_that_delete_it_at_once_neither_fails(
    s3_uri: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = storage.join(s3_uri, name)
    below = [uri] if name == "file" else [f"{uri}/a", f"{uri}/b/1", f"{uri}/b/c/2"]
    for each in [*below, f"{uri}-of-mine"]:
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
    monkeypatch.setattr(storage, "open_filesystem", opened)
    assert looked and storage.list_names(s3_uri) == [f"{name}-of-mine"]
