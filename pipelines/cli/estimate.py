"""`homefeed estimate`: what exploration requests said of a judged cycle's models, as a table.

Tested in tests/pipelines/cli/test_estimate.py.
"""

from typing import Annotated

import typer

from pipelines import storage
from pipelines.cli.say import say
from pipelines.contracts.judgement import Judgement, OffPolicyEstimate
from pipelines.stages.runner import read_artifact


def estimate(
    run: Annotated[str, typer.Option(help="URI or path of a judged cycle's run folder.")],
) -> None:
    """Show the offline estimates of a cycle: as compared, and from exploration requests."""
    judgement = read_artifact(storage.to_uri(run), "compare_with_champion", Judgement)
    comparison, target = judgement.comparison, judgement.comparison.target
    ours, theirs = comparison.challenger_model.label, comparison.baseline_label
    say(f"{ours} against {theirs}:")
    if target is not None and target.baseline is not None and target.relative_change is not None:
        change = target.relative_change
        say(
            f"{comparison.target_metric}: {target.challenger:.4f} against {target.baseline:.4f}, "
            f"{change.value:+.2%} ({change.low:+.2%} to {change.high:+.2%}), on all "
            f"{comparison.num_requests:,} requests, most with candidates that a model had chosen"
        )
    for row in judgement.estimates:
        say(_line(row))
    if not judgement.estimates:
        say("no requests with randomly drawn candidates: nothing else can be estimated")


def _line(row: OffPolicyEstimate) -> str:
    if row.challenger is None or row.baseline is None:
        return f"{row.estimator}: {row.note or 'no request could be used'}"
    said = f"{row.estimator}: {row.challenger:.4f} against {row.baseline:.4f}"
    if row.relative_change is not None:
        change = row.relative_change
        said = f"{said}, {change.value:+.2%} ({change.low:+.2%} to {change.high:+.2%})"
    return (
        f"{said}, on {row.num_requests:,} exploration requests, worth {row.effective_size:,.0f}"
        f"{'. ' + row.note if row.note else ''}"
    )
