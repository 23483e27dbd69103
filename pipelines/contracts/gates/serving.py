"""What a bundle may cost to serve; `training.bundle.serving_check` measures it."""

from pydantic import Field

from pipelines.contracts.base import Frozen


class ServingConfig(Frozen):
    """What a bundle may cost to serve; checked on the machine that compares, before a promotion."""

    num_candidates: int = Field(default=100, ge=1, description="Candidates of the timed request.")
    num_calls: int = Field(default=200, ge=20, description="Timed calls, after a warm-up.")
    num_threads: int = Field(default=1, ge=1, description="CPU threads that score.")
    max_latency_p99_ms: float = Field(default=250.0, gt=0, description="Slowest call in 100, ms.")
    max_memory_mib: float = Field(default=2048.0, gt=0, description="Peak of the process, MiB.")
    max_golden_difference: float = Field(
        default=1e-5, gt=0, description="Largest change of a golden row's probability."
    )
    max_saturated_share: float = Field(
        default=0.5, gt=0, le=1, description="Share of golden scores within 1e-6 of 0 or 1."
    )
