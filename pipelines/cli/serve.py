"""`homefeed serve`: the champion answers. Tested in tests/pipelines/serving."""

from pathlib import Path
from typing import Annotated

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
) -> None:
    """Answer ranking requests with the champion, and follow it, until stopped."""
    import uvicorn

    from pipelines.serving.server import Server

    settings = Settings()
    cache = Path(settings.home).expanduser().absolute() / "serving"
    server = Server(settings, cache, look_every_s)
    say(f"serving {settings.registered_model} at http://{host}:{port}/rank")
    uvicorn.run(server.app(), host=host, port=port, log_level="warning", timeout_keep_alive=30)
