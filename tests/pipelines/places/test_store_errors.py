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
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.faulty_store import error_xml
from support.s3_server import BUCKET

TOKEN = "FwoGZXIvYXdzEtoken"
SAID: dict[str, tuple[int, bytes]] = {
    "AccessDenied": (403, error_xml("AccessDenied", "Access Denied")),
    "InvalidAccessKeyId": (403, error_xml("InvalidAccessKeyId", AWSAccessKeyId="AKIA")),
    "SignatureDoesNotMatch": (403, error_xml("SignatureDoesNotMatch")),
    "InvalidToken": (400, error_xml("InvalidToken", **{"Token-0": TOKEN})),
    "PermanentRedirect": (301, error_xml("PermanentRedirect", Endpoint="b.s3.eu-west-1")),
    "AuthorizationHeaderMalformed": (
        400,
        error_xml("AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong"),
    ),
    "ExpiredToken": (400, error_xml("ExpiredToken", **{"Token-0": TOKEN})),
    "RequestTimeTooSkewed": (403, error_xml("RequestTimeTooSkewed", ServerTime="2026-01-01")),
    "NoSuchBucket": (404, error_xml("NoSuchBucket", BucketName=BUCKET)),
    "QuotaExceeded": (507, error_xml("QuotaExceeded")),
}
MEANS: dict[str, tuple[str, str]] = {
    "AccessDenied": ("no access", "refuses access .*the bucket's policy"),
    "InvalidAccessKeyId": ("no access", "correct the credentials"),
    "SignatureDoesNotMatch": ("no access", "AWS_SECRET_ACCESS_KEY"),
    "InvalidToken": ("no access", "AWS_SESSION_TOKEN"),
    "PermanentRedirect": ("region", r"us-east-1 \(AWS_REGION\) .*set AWS_REGION"),
    "AuthorizationHeaderMalformed": ("region", "expected the bucket's own"),
    "ExpiredToken": ("expired", "have expired .*give the workers a role"),
    "RequestTimeTooSkewed": ("clock", "clock is not the store's .*set the clock"),
    "NoSuchBucket": ("no bucket", f"there is no bucket '{BUCKET}' .*make it"),
    "QuotaExceeded": ("", "check the storage, then retry"),
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
        proxy.answers |= SAID
        yield proxy


@pytest.fixture
def proxy(
    module_proxy: FaultyProxy, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", module_proxy.url)
    storage.write_new(f"{s3_uri}/x", b"the probe is done with this")
    yield module_proxy
    module_proxy.mend()


def refused(proxy: FaultyProxy, code: str, act: Callable[[str], object], uri: str) -> HomefeedError:
    proxy.choose = lambda *_: code
    with pytest.raises(HomefeedError) as caught:
        act(uri)
    return caught.value


@pytest.mark.parametrize("code", [code for code in SAID if code != "NoSuchBucket"])
def test_every_request_says_what_the_store_refuses(
    proxy: FaultyProxy, s3_uri: str, code: str
) -> None:
    kind, says = MEANS[code]
    for name, act in (READS | WRITES).items():
        error = refused(proxy, code, act, f"{s3_uri}/x")
        assert error.kind == kind and re.search(says, str(error)), f"{name}: {error!r}"
        may_pass = code in ("ExpiredToken", "QuotaExceeded")
        assert (error.exit_code, error.is_retryable) == ((75, True) if may_pass else (78, False))
        assert s3_uri in str(error) and TOKEN not in str(error), name


@pytest.mark.parametrize("name", WRITES)
def test_a_bucket_that_is_missing_is_named_by_every_write(
    proxy: FaultyProxy, s3_uri: str, name: str
) -> None:
    error = refused(proxy, "NoSuchBucket", WRITES[name], f"{s3_uri}/x")
    assert (error.kind, error.exit_code) == ("no bucket", 78)
    assert f"there is no bucket '{BUCKET}'" in str(error)


def test_a_bucket_is_told_from_an_empty_folder(s3_uri: str) -> None:
    store_errors.require_bucket(f"{s3_uri}/nothing/here")
    with pytest.raises(errors.ConfigurationError, match="there is no bucket 'nowhere'"):
        store_errors.require_bucket("s3://nowhere/event_log")
