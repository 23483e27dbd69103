"""`homefeed snapshot ...`: what lies in a snapshot, how two differ, whether one is unharmed.

Tested in tests/pipelines/snapshot_view.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import storage
from pipelines.cli.printing import Commands, say, say_all, say_value
from pipelines.contracts.errors import SnapshotDamagedError
from pipelines.settings import Settings

app = Commands(help="Look at snapshots, and verify them.", no_args_is_help=True)

Place = Annotated[
    str, typer.Argument(help="Folder or URI, or the beginning of a name in the workspace.")
]


@app.command()
def show(
    snapshot: Annotated[
        str,
        typer.Argument(
            help="Folder or URI, or the beginning of a name in the workspace; all by default."
        ),
    ] = "",
    html: Annotated[str, typer.Option(help="File for the page with plots.")] = "",
) -> Any:
    """Show a snapshot's windows, rows, label rates, sequence lengths, sizes; or list them all."""
    from pipelines.snapshot_view import showing
    from pipelines.snapshot_view.facts import read_facts
    from pipelines.snapshot_view.finding import find, published

    workspace_uri = storage.to_uri(Settings().workspace_location)
    if not snapshot:
        found = published(workspace_uri)
        say_all([*showing.list_lines(found), f"{len(found)} snapshots in {workspace_uri}"])
        return found
    one = find(snapshot, workspace_uri)
    with storage.local_copy(one.uri) as folder:
        facts = read_facts(one, folder)
    say_all(showing.lines_of(facts))
    if html:
        page = Path(html).resolve()
        storage.write_bytes(page.as_uri(), showing.render(facts).encode())
        say(f"page: {page}")
    return facts


@app.command()
def diff(one: Place, other: Place) -> Any:
    """Show what differs between two snapshots: settings, numbers, files, requests."""
    from pipelines.snapshot_view.facts import compare
    from pipelines.snapshot_view.finding import find
    from pipelines.snapshot_view.showing import difference_lines

    workspace_uri = storage.to_uri(Settings().workspace_location)
    first, second = find(one, workspace_uri), find(other, workspace_uri)
    with storage.local_copy(first.uri) as here, storage.local_copy(second.uri) as there:
        found = compare(first, here, second, there)
    say_all(difference_lines(found))
    return found


@app.command()
def verify(
    snapshots: Annotated[
        list[str] | None, typer.Argument(help="As for `show`; all of the workspace by default.")
    ] = None,
) -> None:
    """Read every byte of a snapshot, and compare digests and counts with its manifest.

    The exit code is 65 where a file is missing, altered or beyond what the manifest names.
    """
    from pipelines.snapshot_view.finding import find, problems, published

    workspace_uri = storage.to_uri(Settings().workspace_location)
    named = [find(each, workspace_uri) for each in snapshots or ()]
    damaged, value = [], []
    chosen = named or published(workspace_uri)
    for each in chosen:
        with storage.local_copy(each.uri) as folder:
            wrong = list(problems(each, folder))
        said = f"{len(each.files)} files are as published"
        said = f"not as published, in {len(wrong)} place(s)" if wrong else said
        say(f"{each.digest[:16]}  {said}")
        for problem in wrong:
            say(f"  {problem}")
        damaged += [each.uri] if wrong else []
        value.append({"uri": each.uri, "digest": each.digest, "problems": wrong})
    say_value({"snapshots": value})
    if damaged:
        raise SnapshotDamagedError(
            f"{len(damaged)} of {len(chosen)} snapshots are not as they were published: "
            f"{', '.join(damaged[:3])}; expected the files of their manifests; build them again "
            f"with `homefeed stage build_snapshot --run RUN --again`, RUN being the folder of a "
            f"run that uses one"
        )
    say(f"{len(chosen)} snapshots verified")
