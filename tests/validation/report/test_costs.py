"""What a cycle cost, in the words of a table."""

import pytest

from pipelines.contracts.cycle import CycleCosts
from support.outcome_pages import STAGES, costs_of
from validation.report.costs import NOT_KNOWN, cost_rows, duration, size


@pytest.mark.parametrize(
    ("say", "number", "said"),
    [
        *((duration, *pair) for pair in ((0, "0.0 s"), (9.94, "9.9 s"), (41, "41 s"),
                                         (3600, "60 min"), (11_100, "3 h 05 min"))),
        *((size, *pair) for pair in ((0, "0 B"), (999, "999 B"), (1_234_567, "1.23 MB"),
                                     (3.4e11, "340 GB"))),
    ],
)  # fmt: skip
def test_times_and_sizes_are_said_as_people_say_them(say, number: float, said: str) -> None:
    assert say(number) == said


def test_stages_stand_beside_the_median_of_earlier_cycles() -> None:
    earlier = [costs_of("a", 0.5), costs_of("b", 0.8), costs_of("c", 2.0)]
    rows = cost_rows(costs_of("now"), earlier)
    assert [row["stage"] for row in rows] == [*STAGES, "together"]
    assert rows[STAGES.index("train_challenger")] == {
        "stage": "train_challenger", "wall": "60 min", "earlier": "48 min (+25 %)",
        "cpu": "90 min", "gpu": "60 min", "peak": "3.4 GB", "read": "81 GB", "written": "12.3 MB",
    }  # fmt: skip
    assert rows[0]["earlier"] == "0.3 s"  # of less than a second, a share says nothing
    # A sum, and the largest.
    assert rows[-1]["cpu"] == "7 h 30 min" and rows[-1]["peak"] == "3.4 GB"


def test_what_was_not_measured_is_a_dash_and_no_zero() -> None:
    for row in cost_rows(costs_of("now", is_measured=False), ()):
        assert {row[name] for name in ("cpu", "gpu", "peak", "read", "earlier")} == {NOT_KNOWN}
    assert cost_rows(CycleCosts(run_id="x"), ()) == []


def test_an_earlier_cycle_that_lacks_a_stage_is_not_held_against_the_sum() -> None:
    whole = costs_of("a")
    half = whole.model_copy(update={"stages": whole.stages[:2]})
    rows = cost_rows(costs_of("now"), [half])
    assert (rows[-1]["earlier"], rows[1]["earlier"]) == (NOT_KNOWN, "15 min (+0 %)")
