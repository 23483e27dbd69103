"""Records: no number is NaN or infinite, and another schema version is refused with what to do."""

import json
import math

import pytest
from pydantic import ValidationError

from pipelines.contracts.base import Frozen, digest_of


class Sample(Frozen):
    share: float
    by_segment: dict[str, float | None] = {}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    for fields in ({"share": number}, {"share": 0.0, "by_segment": {"core": number}}):
        with pytest.raises(ValidationError, match="finite number"):
            Sample(**fields)
        with pytest.raises(ValidationError, match="finite number"):
            Sample.model_validate_json(json.dumps(fields))
        with pytest.raises(ValueError, match="not JSON compliant"):
            digest_of(fields)


def test_a_record_is_read_as_it_was_and_one_of_another_version_refused_with_what_to_do() -> None:
    value = Sample(share=0.1, by_segment={"core": None, "all": 1e-300})
    content = value.to_record()
    assert content.startswith(b'{\n  "schema_version": 1,') and Sample.from_record(content) == value
    digest = digest_of({"by_segment": {"all": 1e-300, "core": None}, "share": 0.1})
    assert value.fingerprint() == digest
    for other, found in (
        (content.replace(b'"schema_version": 1', b'"schema_version": 2'), "schema_version is 2"),
        (b'{"share": 0.1}', "schema_version is missing"),
        (b"{half", "Invalid JSON"),
        (b"[]", "Input should be an object"),
    ):
        with pytest.raises(ValidationError, match=found) as raised:
            Sample.from_record(other)
        assert ("go on with that version" in str(raised.value)) == ("schema" in found)
