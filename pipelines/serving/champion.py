"""The model that answers: the champion, followed by the newest entry of its history.

A new one is fetched, compared with its digests, loaded (which scores its example rows) and warmed
before it answers; the one before stays loaded, so that a rollback takes no longer than a look at
the history. Where history and registry disagree, where a version does not check out, and where
either cannot be read, the model that answers goes on. Files lie in a cache by their digest:

    <cache>/<bundle digest>/...    as registered; read without the registry too, once compared

Not for moving the champion (`pipelines.registry`). Tested in tests/pipelines/serving/.
"""

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import HomefeedError
from pipelines.registry import history, reconcile, registry, tracking
from pipelines.serving import known
from pipelines.serving.known import Known
from pipelines.settings import Settings
from training.bundle.files import Predictor, load_bundle, read_golden

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
_WARM_UP_CALLS = 3


@dataclass(frozen=True, eq=False)
class Served:
    """A model that can answer."""

    model: ModelRef
    predictor: Predictor
    known: Known | None = None  # Of users and pins, where requests may name them by their ids.


class Champion:
    """Holds the model that answers, and at most the one before.

    Args:
        settings: Whose champion.
        cache: Folder for the models' files.
        look_every_s: Seconds between two looks.
        looked: Called after each.
        is_by_id: Holds the newest snapshot too, for requests that name users and pins.

    Attributes:
        current: The model that answers; None until the first is loaded.
        trouble: Why the newest entry is not followed, in a sentence; '' where it is.
        refused: Why, by the digest of a bundle, it does not check out.
    """

    def __init__(
        self,
        settings: Settings,
        cache: Path,
        look_every_s: float,
        looked: Callable[[], None],
        is_by_id: bool = False,
    ) -> None:
        self.current: Served | None = None
        self.trouble = "no look at the history yet"
        self._before: Served | None = None
        self._settings, self._cache, self._look_every_s = settings, cache, look_every_s
        self.refused, self._looked, self._is_by_id = dict[str, str](), looked, is_by_id
        self._stopped = threading.Event()

    def run(self) -> None:
        """Follow until `stop`; errors are told by `trouble`, and the next look tries again."""
        is_over = False
        while not is_over:
            self.follow()
            self._looked()
            is_over = self._stopped.wait(self._look_every_s)

    def stop(self) -> None:
        """Let `run` end."""
        self._stopped.set()

    def follow(self) -> None:
        """Look once at what should serve, and let that answer."""
        try:
            trouble = self._follow()
            if self.current:
                self.current = self._knowing(self.current)
            self.trouble = trouble
        except HomefeedError as error:
            self.trouble = f"{error}"
        except Exception as error:  # noqa: BLE001  # Whatever a look meets, the server goes on.
            log.exception("looking at the champion failed")
            self.trouble = f"{type(error).__name__}: {error}"

    def _follow(self) -> str:
        """Return why the newest entry is not followed; '' where it is."""
        settings = self._settings
        workspace, name = settings.workspace_uri, settings.registered_model
        away = ""
        try:
            client = tracking.connect(settings.tracking_uri)
            state = reconcile.look_between_moves(client, workspace, name)
        except HomefeedError as error:
            if self.current is not None:
                raise
            client, known, away = None, history.load(workspace, name), f"{error}"
        else:
            if found := state.disagreement():
                return found
            known = state.history
        if known.is_newest_damaged or known.last is None:
            return away or f"the history of {name} has no move that can be read"
        wanted = known.last.model
        if self.current is None or self.current.model.bundle_digest != wanted.bundle_digest:
            if refused := self.refused.get(wanted.bundle_digest):
                return refused
            self._let_answer(client, wanted, away)
        return away

    def _let_answer(self, client: "MlflowClient | None", wanted: ModelRef, away: str) -> None:
        """Load a model unless it is loaded still, and let it answer from the next batch on."""
        before = self._before
        if before is None or before.model.bundle_digest != wanted.bundle_digest:
            self._before = before = None  # Two models at most are in memory.
            try:
                before = self._load(client, wanted)
            except HomefeedError as error:
                if not error.is_retryable:
                    self.refused[wanted.bundle_digest] = f"{wanted.label} is refused: {error}"
                raise
        before = self._knowing(before)
        self.trouble = away  # Before the model: whoever sees that one answers reads of this look.
        self.current, self._before = before, self.current
        log.info("%s answers", wanted.label)

    def _knowing(self, served: Served) -> Served:
        """Return a model with the newest snapshot, where requests may name users and pins."""
        if not self._is_by_id:
            return served
        config = served.predictor.config
        found = known.newest(self._settings.workspace_uri, config, served.known)
        return served if found is served.known else replace(served, known=found)

    def _load(self, client: "MlflowClient | None", wanted: ModelRef) -> Served:
        place = self._cache / wanted.bundle_digest
        if not place.is_dir():
            if client is None:
                raise HomefeedError(f"{wanted.label} is not in the cache {self._cache}")
            self._cache.mkdir(parents=True, exist_ok=True)
            with storage.scratch_folder(self._cache.as_uri() + "/new") as scratch:
                root = registry.download_version(client, wanted, scratch)
                [config] = root.rglob("bundle.json")
                config.parent.rename(place)
        registry.require_digest(wanted, "bundle", place, f"delete {place}: it is fetched again")
        predictor = load_bundle(place)
        golden, _ = read_golden(place, len(predictor.config.features.heads))
        for _ in range(_WARM_UP_CALLS):
            predictor.probabilities(golden)
        kept = {wanted.bundle_digest, self.current and self.current.model.bundle_digest}
        for other in self._cache.iterdir():
            if other.name not in kept and len(other.name) == len(wanted.bundle_digest):
                shutil.rmtree(other, ignore_errors=True)
        return Served(wanted, predictor)
