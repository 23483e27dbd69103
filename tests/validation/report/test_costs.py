"""What a cycle cost, in the words of a table."""

from support.outcome_pages import STAGES, costs_of
from validation.report.costs import NOT_KNOWN, cost_rows


def test_stages_stand_beside_the_median_of_earlier_cycles() -> None:
    rows = cost_rows(costs_of(), [costs_of(0.5), costs_of(0.8), costs_of(2.0)])
    assert [row["stage"] for row in rows] == [*STAGES, "together"]
    assert rows[STAGES.index("train_challenger")] == {
        "stage": "train_challenger", "wall": "1:00:00", "earlier": "0:48:00 (+25 %)",
        "cpu": "1:30:00", "gpu": "1:00:00", "peak": "3.4 GB", "read": "81.0 GB",
        "written": "12.3 MB", "price": "",
    }  # fmt: skip
    assert rows[0]["earlier"] == "0.3 s"  # of less than a second, a share says nothing
    # A sum, and the largest.
    assert rows[-1]["cpu"] == "7:30:00" and rows[-1]["peak"] == "3.4 GB"


def test_hours_are_money_where_prices_are_given() -> None:
    rows = cost_rows(costs_of(), (), (0.04, 2.0))
    train = rows[STAGES.index("train_challenger")]
    assert (train["cpu"], train["gpu"], train["price"]) == ("1:30:00", "1:00:00", "2.06")
    assert float(rows[-1]["price"]) >= sum(float(row["price"]) for row in rows[:-1]) - 0.01
    assert {row["price"] for row in cost_rows(costs_of(is_measured=False), (), (1, 1))} == {""}


def test_what_was_not_measured_is_a_dash_and_a_cycle_that_lacks_a_stage_has_no_sum() -> None:
    for row in cost_rows(costs_of(is_measured=False), ()):
        assert {row[name] for name in ("cpu", "gpu", "peak", "read", "earlier")} == {NOT_KNOWN}
    assert cost_rows((), ()) == []
    rows = cost_rows(costs_of(), [costs_of()[:2]])
    assert (rows[-1]["earlier"], rows[1]["earlier"]) == (NOT_KNOWN, "0:15:00 (+0 %)")
