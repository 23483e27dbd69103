"""`promote_challenger`: the champion moves if the verdict, the run and the registry permit it.

Tested in tests/pipelines/registry/test_promotion.py, and by kills in test_killed_stages.py.
"""

from datetime import datetime

from pipelines.contracts.artifacts import Challenger, FreshAnchor, ResolvedRun
from pipelines.contracts.judgement import Judgement, Promotion


def promote_challenger(
    run: ResolvedRun,
    challenger: Challenger,
    fresh: FreshAnchor,
    judgement: Judgement,
    now: datetime,
) -> Promotion:
    """Move the `champion` alias and record the move, or say in one sentence why nothing moved.

    Args:
        run: The cycle, with the champion that it was resolved against.
        challenger: The model that may become champion.
        fresh: The accepted recipe made fresh, which may in its place.
        judgement: The verdict, which must be about these models.
        now: The time of the move, for the history.

    Raises:
        PromotionRefusedError: the alias moved since, or the verdict is about other models.
        TrackingUnavailableError: MLflow does not answer; the message says what was moved.
    """
    from pipelines.registry.promotion import move_if_permitted

    return move_if_permitted(run, challenger, fresh, judgement, now)
