import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.sources.world.parameters import make_parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, "--num-users is 0; .*equal to 1"),
        ({"num_pins": 59}, "--num-pins is 59; .*equal to 60"),
        ({"num_days": 0}, "--num-days is 0; .*equal to 1"),
        ({"seed": -1}, "--seed is -1; .*equal to 0"),
        ({"start": "yesterday"}, "--start is 'yesterday'; .*valid date"),
        ({"start": "1999-12-31"}, "--start is 1999-12-31 with --num-days 60"),
        ({"start": "2099-12-31"}, "expected days from 2000-01-01 to before 2100-01-01"),
        ({"pin_lifetime_days": 0.0}, "--pin-lifetime-days is 0.0; .*equal to 0.1"),
        ({"pin_lifetime_days": float("nan")}, "--pin-lifetime-days is nan"),
        ({"pin_lifetime_days": 1.0}, "--pin-lifetime-days 1.0 .* leaves 3 pins .* raise --num-p"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message: str) -> None:
    given = {"num_users": 10, "num_pins": 60, "num_days": 60, "start": "2024-01-01", "seed": 1}
    with pytest.raises(ConfigurationError, match=message):
        make_parameters(**(given | arguments))
