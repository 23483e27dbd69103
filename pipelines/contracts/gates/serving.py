"""What a bundle may cost to serve; `training.bundle.serving_check` measures it."""

from pydantic import Field

from pipelines.contracts.base import Frozen


class ServingConfig(Frozen):
    """What a bundle may cost to serve; checked on the machine that compares, before a promotion."""

    num_candidates: int = Field(default=100, ge=1, description="Candidates of the timed request.")
    num_calls: int = Field(default=200, ge=20, description="Timed calls, after a warm-up.")
    max_latency_p99_ms: float = Field(default=250.0, gt=0, description="Slowest call in 100, ms.")
    max_memory_mib: float = Field(default=2048.0, gt=0, description="Peak of the process, MiB.")
