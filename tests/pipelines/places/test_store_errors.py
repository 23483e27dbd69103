"""What a store refuses has a class and a message of its own, whichever client met it.

A real S3 server answers; what it cannot be brought to say is said by the proxy before it.
"""

import re
from collections.abc import Callable, Iterator

import pytest

from pipelines import storage
from pipelines.contracts import errors
from pipelines.contracts.errors import HomefeedError
from pipelines.places import store_errors
from support.faulty_proxy import FaultyProxy, error_xml, faulty_proxy

TOKEN = "FwoGZXIvYXdzEtoken"
# By code: the status, what else the store says, and what is made of it.
CODES: dict[str, tuple[int, dict[str, str], str, str]] = {
    "AccessDenied": (403, {}, "no access", "refuses access .*the bucket's policy"),
    "InvalidAccessKeyId": (403, {"AWSAccessKeyId": "A"}, "no access", "correct the credentials"),
    "SignatureDoesNotMatch": (403, {}, "no access", "AWS_SECRET_ACCESS_KEY"),
    "InvalidToken": (400, {"Token-0": TOKEN}, "no access", "AWS_SESSION_TOKEN"),
    "PermanentRedirect": (301, {"Endpoint": "b.eu"}, "region", r"us-east-1 .*set AWS_REGION"),
    "AuthorizationHeaderMalformed": (400, {}, "region", "expected the bucket's own"),
    "ExpiredToken": (400, {"Token-0": TOKEN}, "expired", "have expired .*give the workers a role"),
    "RequestTimeTooSkewed": (403, {}, "clock", "clock is not the store's .*set the clock"),
    "NoSuchBucket": (404, {}, "no bucket", "there is no such bucket .*make it"),
    "QuotaExceeded": (507, {}, "", "check the storage, then retry"),
}
READS: dict[str, Callable[[str], object]] = {
    "exists": storage.exists,
    "read": storage.read_bytes,
    "list": lambda uri: storage.list_names(uri.rpartition("/")[0]),
    "look": storage.look,
    "look for work": storage.is_abandoned,
}
WRITES: dict[str, Callable[[str], object]] = {
    "write": lambda uri: storage.write_bytes(uri, b"x"),
    "write new": lambda uri: storage.write_new(f"{uri}.new", b"x"),
}


@pytest.fixture(scope="module")
def module_proxy(s3_url: str) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3_url) as proxy:
        for code, (status, more, _, _) in CODES.items():
            proxy.answers[code] = (status, error_xml(code, **more))
        yield proxy


@pytest.fixture
def proxy(
    module_proxy: FaultyProxy, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", module_proxy.url)
    storage.write_new(f"{s3_uri}/x", b"the probe is done with this")
    yield module_proxy
    module_proxy.mend()


@pytest.mark.parametrize("code", CODES)
def test_every_request_says_what_the_store_refuses(
    proxy: FaultyProxy, s3_uri: str, code: str
) -> None:
    _, _, kind, says = CODES[code]
    proxy.choose = lambda *_: code
    # What reads takes a bucket that is missing for an empty one.
    for name, act in (WRITES if code == "NoSuchBucket" else READS | WRITES).items():
        with pytest.raises(HomefeedError) as caught:
            act(f"{s3_uri}/x")
        error = caught.value
        assert error.kind == kind and re.search(says, str(error)), f"{name}: {error!r}"
        may_pass = code in ("ExpiredToken", "QuotaExceeded")
        assert (error.exit_code, error.is_retryable) == ((75, True) if may_pass else (78, False))
        assert s3_uri in str(error) and TOKEN not in str(error), name


def test_a_bucket_is_told_from_an_empty_folder(s3_uri: str) -> None:
    store_errors.require_bucket(f"{s3_uri}/nothing/here")
    with pytest.raises(errors.ConfigurationError, match="nowhere/.*: there is no such bucket"):
        store_errors.require_bucket("s3://nowhere/event_log")
