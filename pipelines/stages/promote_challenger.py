"""`promote_challenger`: the champion moves if the verdict, the run and the registry permit it.

Tested in tests/pipelines/registry/test_promotion.py, and by kills in test_faults_in_cycles.py.
"""

from datetime import datetime
from typing import Any

from pipelines.contracts.artifacts import Challenger, FreshAnchor, ResolvedRun
from pipelines.contracts.judgement import Judgement, Promotion

ANSWERED = "promote_challenger"
"""The stage that a person's answer decides, besides its inputs."""


def promote_challenger(
    run: ResolvedRun,
    challenger: Challenger,
    fresh: FreshAnchor,
    judgement: Judgement,
    now: datetime,
) -> Promotion:
    """Move the `champion` alias and record the move, or say in one sentence why nothing moved.

    Raises:
        HomefeedError: as `move_if_permitted` raises.
    """
    from pipelines.registry.moves import move_if_permitted

    return move_if_permitted(run, challenger, fresh, judgement, now)


def answered_since(run_uri: str, published: dict[str, Any]) -> str:
    """Say that a person has answered after the stage had published that nobody approved.

    Whoever clears the question is asked again, and the answer must not be lost because the stage
    is done. What was promoted stays done: a promotion is made once, whatever is answered later.

    Args:
        run_uri: The run folder.
        published: JSON form of the `Promotion` in the stage's manifest.

    Returns:
        What has changed; '' where nothing has, or where the champion moved already.

    Raises:
        DataContractError: the answer on record cannot be read.
    """
    if published.get("is_promoted") or not published.get("approval"):
        return ""
    from pipelines.registry.moves import read_approval

    found = read_approval(run_uri)
    if found is None or found.model_dump(mode="json") == published["approval"]:
        return ""
    return f"it had published {published.get('reason')!r}, and now: {found.sentence}"
