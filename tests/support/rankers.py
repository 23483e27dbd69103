"""`homefeed serve` as a process beside a desk's registry, and what it should answer."""

import os
import sys
from typing import Any

import httpx
import numpy as np

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.files import digest_files, digest_of_files
from support.desk import Desk
from support.serving import Process, free_port
from training.bundle.files import Predictor, load_bundle
from training.bundle.ranking_requests import Decoder, score


class Ranker:
    """A server of a desk's champion, and a client of it."""

    def __init__(self, desk: Desk, *options: str, **environment: str) -> None:
        self.desk, port = desk, free_port()
        command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", f"{port}"]
        env = os.environ | {
            "HOMEFEED_HOME": str(desk.folder / "home"),
            "HOMEFEED_WORKSPACE": desk.where[0],
            "HOMEFEED_TRACKING_URI": desk.settings.tracking_uri,
            "HOMEFEED_REGISTERED_MODEL": desk.name,
        }
        self.process = Process(
            [*command, "--look-every", "0.2", *options],
            desk.folder / "server.log",
            f"http://127.0.0.1:{port}/ready",
            {"env": env | environment},
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def rank(self, *requests: Any, **headers: str) -> httpx.Response:
        return self.client.post("/rank", json={"requests": requests}, headers=headers)

    def ready(self) -> dict[str, Any]:
        return dict(self.client.get("/ready").json())

    def version(self) -> str:
        return str(self.ready()["model"]["version"])


def predictor_of(desk: Desk, model: ModelRef) -> Predictor:
    """Return a version's model, as it was before it was registered."""
    folders = desk.folder.glob("bundle-*")
    [own] = [f for f in folders if digest_of_files(digest_files(f)) == model.bundle_digest]
    return load_bundle(own)


def utility(predictor: Predictor, request: dict[str, Any]) -> np.ndarray:
    [answer] = score(predictor, [Decoder(predictor.config).decode(request)])
    return answer.utility
