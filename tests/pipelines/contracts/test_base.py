"""The base of every contract: no number is NaN or infinite, neither in a value nor in a digest."""

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
    with pytest.raises(ValidationError, match="finite number"):
        Sample(share=number)
    with pytest.raises(ValidationError, match="finite number"):
        Sample(share=0.0, by_segment={"core": number})
    with pytest.raises(ValidationError, match="finite number"):
        Sample.model_validate_json(json.dumps({"share": number}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_of({"share": number})


def test_a_finite_value_survives_json() -> None:
    value = Sample(share=0.1, by_segment={"core": None, "all": 1e-300})
    assert Sample.model_validate_json(value.model_dump_json()) == value
    assert value.fingerprint() == digest_of(
        {"by_segment": {"all": 1e-300, "core": None}, "share": 0.1}
    )
