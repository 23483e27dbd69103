"""`homefeed estimate`: what exploration requests said of a judged cycle's models, as a table.

Tested in tests/pipelines/cli/test_estimate.py.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pipelines import storage
from pipelines.cli.printing import say_all
from pipelines.contracts.judgement import Judgement
from pipelines.stages.runner import read_artifact


def estimate(
    run: Annotated[str, typer.Option(help="URI or path of a judged cycle's run folder.")],
) -> dict[str, Any]:
    """Show the offline estimates of a cycle: as compared, and from exploration requests."""
    judgement = read_artifact(storage.to_uri(run), "compare_with_champion", Judgement)
    comparison = judgement.comparison
    say_all(_lines_of(judgement))
    return {
        "challenger": comparison.challenger_model,
        "baseline": comparison.baseline_label,
        "target": comparison.target,
        "num_requests": comparison.num_requests,
        "estimates": judgement.estimates,
    }


def _lines_of(judgement: Judgement) -> Iterator[str]:
    comparison, target = judgement.comparison, judgement.comparison.target
    yield f"{comparison.challenger_model.label} against {comparison.baseline_label}:"
    if target is not None and target.baseline is not None and target.relative_change is not None:
        change = target.relative_change
        yield (
            f"{comparison.target_metric}: {target.challenger:.4f} against {target.baseline:.4f}, "
            f"{change.value:+.2%} ({change.low:+.2%} to {change.high:+.2%}), on all "
            f"{comparison.num_requests:,} requests, most with candidates that a model had chosen"
        )
    for row in judgement.estimates:
        if row.challenger is None or row.baseline is None:
            yield f"{row.estimator}: {row.note or 'no request could be used'}"
            continue
        said = f"{row.estimator}: {row.challenger:.4f} against {row.baseline:.4f}"
        if (found := row.relative_change) is not None:
            said = f"{said}, {found.value:+.2%} ({found.low:+.2%} to {found.high:+.2%})"
        yield (
            f"{said}, on {row.num_requests:,} exploration requests, worth "
            f"{row.effective_size:,.0f}{'. ' + row.note if row.note else ''}"
        )
    if not judgement.estimates:
        yield "no requests with randomly drawn candidates: nothing else can be estimated"
