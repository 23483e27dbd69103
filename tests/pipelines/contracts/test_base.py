"""Records: no number is NaN or infinite, and another schema version is refused with what to do."""

import json
import math

import pytest
from pydantic import ValidationError

from pipelines.contracts.base import Frozen, digest_of


class Sample(Frozen):
    share: float
    by_segment: dict[str, float | None] = {}


class Percentage(Frozen):
    """A value whose file was a share without a seal in version 1, and a word in version 2."""

    upgrades = (
        lambda found: {"word": f"{found['share']:.0%}"},
        lambda found: {"percent": int(found["word"][:-1])},
    )
    percent: int


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
    assert content.startswith(b'{\n  "schema_version": 2,') and Sample.from_record(content) == value
    for other, found in (
        (content.replace(b'"schema_version": 2', b'"schema_version": 3'), "schema_version is 3"),
        (content.replace(b'"schema_version": 2', b'"schema_version": "2"'), "schema_version is 2"),
        (content.replace(b"0.1", b"0.2"), "it was edited"),
        (content.replace(b"0.1", b"NaN"), "it was edited"),
        (content.replace(b'"seal"', b'"sale"'), "it was edited"),
        (content.replace(b'"schema_version": 2', b'"schema_version": 1'), "Extra inputs"),
        (b'{"schema_version": 2, "share": 0.1}', "it was edited"),
        (b'{"schema_version": 2, "share": 0.1, "seal": ""}', "it was edited"),
        (b'{"share": 0.1}', "schema_version is missing"),
        (b"{half", "Invalid JSON"),
        (b"[]", "Input should be an object"),
    ):
        with pytest.raises(ValidationError, match=found) as raised:
            Sample.from_record(other)
        assert ("go on with that version" in str(raised.value)) == ("schema" in found)


def test_earlier_versions_are_brought_up_to_date_step_by_step_and_later_ones_refused() -> None:
    now = Percentage(percent=10)
    found = json.loads(now.to_record())
    assert len(found.pop("seal")) == 64 and found == {"schema_version": 3, "percent": 10}
    record = {"schema_version": 2, "word": "10%"}
    word = json.dumps(record | {"seal": digest_of(json.dumps(record, sort_keys=True))}).encode()
    then = b'{"schema_version": 1, "share": 0.1}'
    assert [Percentage.from_record(each) for each in (now.to_record(), word, then)] == [now] * 3
    for other in (b"0", b"4"):
        with pytest.raises(ValidationError, match=f"is {other.decode()}, expected 3"):
            Percentage.from_record(word.replace(b": 2", b": " + other))
