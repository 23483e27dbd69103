"""Default and reference encoder, both trained on the sample: what their differences are worth.

Without the past-engagement count and without matches, so that the encoder is all that knows the
sequence. The interval is a paired bootstrap over users of the mean over seeds.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_quality import resampled_means
from record import Row, row
from sample import AS_OF, Scored, train_and_score, variant

SEEDS = (17, 18)


def measure() -> list[Row]:
    """Train both on each seed; return the default's repins in the top 3 against the reference's."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        default = _train(Path(folder), reference=False)
        reference = _train(Path(folder), reference=True)
    users = default[0].user_id
    ours, theirs = (np.mean([run.hits for run in runs], axis=0) for runs in (default, reference))
    change = resampled_means(ours, users) / resampled_means(theirs, users) - 1
    low, high = np.percentile(change, [2.5, 97.5])
    per_seed = [a.hits.mean() / b.hits.mean() - 1 for a, b in zip(default, reference, strict=True)]
    return [
        row(
            "quality_default_vs_reference_encoder",
            float(ours.mean()),
            "repins in top 3",
            ratio=float(ours.mean() / theirs.mean()),
            peer=f"reference encoder, {theirs.mean():.3f}",
            spread=(
                f"95 % paired interval {100 * low:+.1f} to {100 * high:+.1f} %; seeds "
                f"{100 * min(per_seed):+.1f} to {100 * max(per_seed):+.1f} %"
            ),
            rows=len(ours),
            seed=", ".join(map(str, SEEDS)),
            note="both without the past-engagement count and without matches",
        )
    ]


def _train(workspace: Path, *, reference: bool) -> list[Scored]:
    runs = []
    for seed in SEEDS:
        sys.stderr.write(f"  reference={reference}, seed {seed}\n")
        config = variant(seed, count=False, matches=False, reference=reference)
        runs.append(train_and_score(config, AS_OF, workspace))
    return runs
