"""Which requests the encoder computes together, worked out by hand."""

from training.model.encoder.groups import group_sizes

LONG, SHORT, MANY = (100, 8), (17, 8), (100, 30)  # tokens, candidates


def test_groups_end_where_padding_would_cost_more_than_a_group() -> None:
    assert group_sizes([LONG] * 20, 0.2) == [20]
    assert group_sizes([LONG] * 20 + [SHORT], 0.2) == [21]
    assert group_sizes([LONG] * 20 + [SHORT] * 2, 1.0) == [21, 1]
    assert group_sizes([MANY, LONG], 0.2) == [1, 1]  # 22 candidates would be filling
    assert group_sizes([LONG] * 100, 0.2) == [81, 19]  # MAX_GROUP_TOKENS
