"""Which policy a name means, and the models that it needs, from history and registry."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import ConfigurationError
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.record import read_record
from pipelines.registry import history, registry, tracking
from pipelines.settings import Settings
from pipelines.world_run.days import DrawnWorld, replay
from pipelines.world_run.policies import Drawn, Model, Optimum, Policy
from training.bundle.files import Predictor, load_bundle


def policy_maker(
    settings: Settings, log_uri: str, name: str, server: str = ""
) -> Callable[[DrawnWorld], Policy]:
    """Return what makes a policy; the champion is looked up each time.

    Args:
        settings: Whose registry and history are read.
        log_uri: The log of the days before, from which the optimum learns.
        name: `champion`, `challenger`, `frozen`, `random` or `optimum`.
        server: Address of a server that ranks in the champion's place; '' ranks here.
    """
    load = functools.lru_cache(maxsize=1)(functools.partial(_load, settings))
    optimum: list[Optimum] = []

    def make(drawn: DrawnWorld) -> Policy:
        if name == "random":
            return Drawn()
        if name == "optimum":
            if not optimum:
                optimum.append(Optimum(drawn.users))
                record = read_record(log_uri)
                if record and record.files:
                    replay(drawn, optimum[0], open_event_log(log_uri))
            return optimum[0]
        ref = _wanted(settings, name)
        return Model(load(ref), ref, server)

    return make


def _wanted(settings: Settings, name: str) -> ModelRef:
    model = settings.registered_model
    if name == "challenger":
        versions = registry.read_versions(tracking.connect(settings.tracking_uri), model)
        if not versions:
            raise ConfigurationError(f"{model} has no version; expected one; run a cycle first")
        return versions[0]
    moves = history.load(settings.workspace_uri, model).moves
    if not moves:
        raise ConfigurationError(f"{model} has no champion; expected one; run a cycle first")
    return moves[0 if name == "frozen" else -1].model


def _load(settings: Settings, ref: ModelRef) -> Predictor:
    client = tracking.connect(settings.tracking_uri)
    with tempfile.TemporaryDirectory(prefix="homefeed-world-") as folder:
        return load_bundle(registry.download_bundle(client, ref, Path(folder)))
