"""Of two workspaces that want to keep one model's history, one becomes its keeper."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.contracts.errors import HomefeedError, RunInProgressError
from pipelines.registry import reconcile
from pipelines.registry.reconcile import require_own
from support.fake_registry import FakeRegistry


class Interrupted:
    """A client that lets somebody else act, once, just before one of its requests."""

    def __init__(self, client: FakeRegistry, act: Callable[[], None], at: int) -> None:
        self._client, self._act, self._left = client, act, at
        self.tracking_uri = client.tracking_uri

    def __getattr__(self, name: str) -> Any:
        if self._left == 0:
            self._act()
        self._left -= 1
        return getattr(self._client, name)


def become_keeper(client: Any, place: str) -> str:
    """Return the class of the error that tells a workspace not to go on, or ''."""
    try:
        require_own(client, place, "kept")
    except HomefeedError as error:
        return type(error).__name__
    return ""


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waiting take no time."""
    clock = itertools.count()
    monkeypatch.setattr(reconcile.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(reconcile.time, "monotonic", lambda: float(next(clock)))


@pytest.mark.usefixtures("fast_clock")
@pytest.mark.parametrize("first", ["one", "two"])
def test_of_two_workspaces_one_keeps_the_history_wherever_the_other_comes_between(
    tmp_path: Path, first: str
) -> None:
    places = {name: storage.to_uri(tmp_path / name) for name in ("one", "two")}
    second = "two" if first == "one" else "one"
    for at in itertools.count():
        path = tmp_path / f"{at}.json"
        ended: dict[str, str] = {}

        def act(path: Path = path, ended: dict[str, str] = ended) -> None:
            ended[second] = become_keeper(FakeRegistry(path), places[second])

        ended[first] = become_keeper(Interrupted(FakeRegistry(path), act, at), places[first])
        if second not in ended:  # There is no such request.
            break
        story = f"{second} acts before request {at} of {first}: {ended}"
        assert list(ended.values()).count("") <= 1, story
        refused = {"RunInProgressError", "RecordDisagreesError"}
        assert set(ended.values()) <= {""} | refused, story
        again = {name: become_keeper(FakeRegistry(path), place) for name, place in places.items()}
        assert sorted(again.values()) == ["", "RecordDisagreesError"], story
        won = [name for name, error in ended.items() if error == ""]
        assert all(again[name] == "" for name in won), story
    assert at >= 8


@pytest.mark.usefixtures("fast_clock")
def test_a_claim_that_nobody_withdraws_is_named_with_what_ends_it(tmp_path: Path) -> None:
    client, place = FakeRegistry(tmp_path / "registry.json"), storage.to_uri(tmp_path / "one")
    for left in ("homefeed_claim.0", "homefeed_claim.z"):
        client.set_registered_model_tag("kept", left, "file:///gone")
        with pytest.raises(RunInProgressError, match=f"workspace file:///gone .* tag {left} of"):
            require_own(client, place, "kept")
        assert client.get_registered_model("kept").tags == {left: "file:///gone"}
        client.delete_registered_model_tag("kept", left)
    require_own(client, place, "kept")
    assert client.get_registered_model("kept").tags == {"homefeed_workspace": place}
