"""Conditional writes on a real S3 server; a store that has none is refused."""

from collections.abc import Iterator

import obstore
import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import FileDigest
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.places import conditional, stores
from pipelines.places.conditional import Revision
from support.faulty_proxy import ANSWERS, FaultyProxy, faulty_proxy
from support.holders import Holder
from support.s3_server import BUCKET, Manner, s3_server, use_s3

RACE = """
for line in sys.stdin:
    uri = line.strip()
    try:
        storage.write_new(uri, {name!r}.encode())
        print("won", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""
VALUE = FileDigest(path="a", sha256="b", num_bytes=3)


def test_of_two_processes_that_write_a_new_file_exactly_one_succeeds(s3_uri: str) -> None:
    with Holder(RACE.format(name="one")) as one, Holder(RACE.format(name="two")) as two:
        wins = {"one": 0, "two": 0}
        for number in range(-1, 20):
            uri = f"{s3_uri}/{number}.json"
            # Alternating, because who is told first begins first.
            order = (one, two) if number % 2 else (two, one)
            for racer in order:
                racer.tell(uri)
            said = {"one": one.says(), "two": two.says()}
            assert sorted(said.values()) == ["RunInProgressError", "won"], said
            [winner] = (name for name, says in said.items() if says == "won")
            assert storage.read_bytes(uri).decode() == winner
            wins[winner] += 1
        assert min(wins.values()) > 0, "each is told first in about half of the rounds"


def test_what_was_seen_is_written_over_once(s3_uri: str) -> None:
    uri = f"{s3_uri}/manifest.json"
    nothing = storage.look(uri)
    storage.write_over(uri, VALUE, nothing)
    seen = storage.look(uri)
    other = VALUE.model_copy(update={"num_bytes": 4})
    storage.write_over(uri, other, seen)
    for old in (nothing, seen):
        with pytest.raises(RunInProgressError, match="written by another process since"):
            storage.write_over(uri, VALUE, old)
    assert storage.read_model(uri, FileDigest) == other
    seen = storage.look(uri)
    deletion.remove(uri)
    assert conditional.write(uri, b"y", seen) is None and not storage.exists(uri)


@pytest.fixture
def proxy(s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy before the server, by which the probe has gone already."""
    with faulty_proxy(s3_url) as proxy:
        proxy.answers |= ANSWERS
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        storage.write_new(f"{s3_uri}/first.json", b"the probe is done with this")
        yield proxy


@pytest.mark.parametrize(
    "fault",
    ["answer lost", "500", "reset", "truncated", "request lost", "SlowDown", "InternalError"],
)
def test_a_writer_whose_answer_was_lost_knows_its_own_file_or_writes_it_again(
    proxy: FaultyProxy, s3_uri: str, fault: str
) -> None:
    """A stage of hours does not fail because its manifest met one answer 503."""
    proxy.lose("x.json", fault)
    storage.write_new(f"{s3_uri}/x.json", b"x")
    assert len(proxy.met) == 1
    assert storage.read_bytes(f"{s3_uri}/x.json") == b"x"


def test_what_somebody_wrote_while_a_request_was_lost_stays(
    proxy: FaultyProxy, s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{s3_uri}/x.json"
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", s3_url)
        direct, key = stores.open_conditional(uri, 0)

    def choose(method: str, path: str) -> str:
        if method != "PUT" or not path.endswith("x.json"):
            return ""
        obstore.put(direct, key, b"theirs")
        return "request lost"

    proxy.choose = choose
    assert conditional.write(uri, b"ours", Revision()) is None
    assert storage.read_bytes(uri) == b"theirs"


@pytest.mark.parametrize("manner", ["deaf", "without", "bare"])
def test_a_store_without_conditional_writes_is_refused(
    manner: Manner, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, did = f"s3://{BUCKET}/folder/x", "it did not do as the conditions of four writes say"
    found = "it answered" if manner == "without" else did
    with s3_server(manner) as url:
        use_s3(url, monkeypatch)
        storage.write_bytes(f"{uri}.txt", b"plain writes are possible")
        for write in (
            lambda: storage.write_new(uri, b"x"),
            lambda: storage.write_over(uri, VALUE, Revision()),
        ):
            with pytest.raises(
                ConfigurationError,
                match=rf"^s3://{BUCKET} at {url} has no conditional writes: {found}.*expected .*412"
                r".*use a store that has them",
            ) as caught:
                write()
            assert caught.value.kind == "no conditions"
        assert storage.list_names(f"s3://{BUCKET}/folder") == ["x.txt"], "no probe is left"


@pytest.mark.parametrize("name", ["a b", "homefeed_ranker v1.0", "2026-01-05T06:00:00+00:00"])
def test_both_libraries_find_the_same_file(s3_uri: str, name: str) -> None:
    uri = f"{s3_uri}/{name}/x.json"
    storage.write_new(uri, b"new")
    assert storage.read_bytes(uri) == b"new"
    storage.write_bytes(uri, b"newer")
    found = conditional.read(uri)
    assert found is not None and found[0] == b"newer"
    assert storage.list_names(s3_uri) == [name]
