"""`homefeed serve`: the champion answers. Tested in tests/pipelines/serving."""

import re
import socket
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from pipelines.cli.printing import Commands, say
from pipelines.settings import Settings

app = Commands()


@app.command(lasts=True)
def serve(
    host: Annotated[str, Option(help="Address to listen on; this machine alone by default.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, Option(help="Port.", min=1, max=65535)] = 8500,
    look_every_s: Annotated[
        float, Option("--look-every", help="Seconds between looks at what serves.", min=0.05)
    ] = 5.0,
    log: Annotated[
        str, Option(help="Event log that gets each answer as impressions; none by default.")
    ] = "",
    log_every_s: Annotated[
        float, Option("--log-every", help="Seconds between blocks of that log.", min=0.05)
    ] = 60.0,
    by_id: Annotated[
        bool, Option(help="Take what requests leave out of users and pins from the last snapshot.")
    ] = False,
    threads: Annotated[int, Option(help="Passes beside each other; 0: one a core.", min=0)] = 0,
) -> None:
    """Answer ranking requests with the champion, and follow it, until stopped."""
    import uvicorn

    from pipelines import storage
    from pipelines.contracts.base import digest_of
    from pipelines.serving.served_log import ServedLog
    from pipelines.serving.server import Server

    settings = Settings()
    cache = Path(settings.home).expanduser().absolute() / "serving"
    served = None
    if log:
        uri, name = storage.to_uri(log), re.sub(r"[^\w.-]", "-", f"{host}-{port}")
        spools = cache.with_name("served") / digest_of(uri)[:8]
        served = ServedLog(uri, spools, name, log_every_s)
    address = f"{socket.gethostname()}:{port}"
    server = Server(settings, cache, look_every_s, served, address, threads, by_id)
    say(f"serving {settings.registered_model} at http://{host}:{port}/rank")
    # One that is told to end answers what it was asked, and waits for no question's other half.
    timeouts: Any = {"timeout_keep_alive": 30, "timeout_graceful_shutdown": 10}
    uvicorn.run(server.app(), host=host, port=port, log_level="warning", **timeouts)
