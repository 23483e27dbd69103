"""What MLflow's page of an experiment says: what came of the last cycles, with links to their runs.

The description is made of the runs' own tags each time, so that whoever writes it last writes all
of it. What a person has written above it stays. Tested in
tests/pipelines/registry/in_mlflow/test_experiment.py.
"""

import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.plain_text import as_markdown
from pipelines.registry import tracking
from pipelines.settings import MLFLOW_VIEW

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

NUM_SHOWN = 10
"""Cycles that the description tells of."""
HEADING = "## Last cycles of homefeed_retrain"
"""From here on the description is ours; what stands above it is somebody's own."""
_ROOM = 20_000
"""Characters; the server refuses longer tags of experiments."""
_LONGEST_OUTCOME = 400


def describe_experiment(client: "MlflowClient", run: ResolvedRun) -> None:
    """Describe a cycle's experiment by its last cycles.

    Raises:
        HomefeedError: as `translated_outages` raises.
    """
    with translated_outages(client.tracking_uri):
        found = client.get_experiment_by_name(run.experiment)
        if found is None:
            return
        cycles = client.search_runs(
            [found.experiment_id],
            f"tags.{tracking.SIDE} = 'challenger'",
            order_by=["tags.as_of DESC"],
            max_results=NUM_SHOWN,
        )
        before = found.tags.get(tracking.DESCRIPTION, "")
        text = _description(run, before.partition(HEADING)[0], cycles)
        if text != before:
            client.set_experiment_tag(found.experiment_id, tracking.DESCRIPTION, text)


def _description(run: ResolvedRun, own: str, cycles: "list[Run]") -> str:
    """Return a person's own text, then as many of the last cycles as there is room for.

    The person's text is whole; it stands alone where there is no room for anything else.
    """
    server = run.tracking_uri.rstrip("/")
    model = as_markdown(run.registered_model)
    if server.startswith("http"):
        model = (
            f"[{model}](<{server}/#/models/{quote(run.registered_model, safe='')}?{MLFLOW_VIEW}>)"
        )
    start = f"{own.rstrip()}\n\n" if own.strip() else ""
    text = (
        f"{start}{HEADING}\n\nThe version of {model} with the alias `champion` serves. All runs of "
        f"a cycle: ``tags.{tracking.CYCLE} = '...'``.\n"
    )
    if len(text) > _ROOM:
        log.warning(
            "the experiment %s is described in %d characters, which leaves no room for its last "
            "cycles; shorten the description to see them there",
            *(run.experiment, len(own)),
        )
        return own
    for cycle in cycles:
        line = f"\n- {_told(server, cycle)}"
        if len(text) + len(line) > _ROOM:
            break
        text += line
    return text


def _told(server: str, cycle: "Run") -> str:
    """Return a line about a cycle, also of one that was not judged."""
    tags, info = cycle.data.tags, cycle.info
    day = as_markdown(tags.get("as_of", "")[:10] or "a day that is not known")
    if server.startswith("http"):
        page = f"{server}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        day = f"[{day}](<{page}?{MLFLOW_VIEW}>)"
    if failure := tags.get(tracking.FAILURE):
        return f"{day}: broke. {_short(failure)}"
    if "verdict" not in tags:
        return f"{day}: not judged"
    return f"{day}: **{as_markdown(tags['verdict'])}**. {_short(tags.get('outcome', ''))}"


def _short(text: str) -> str:
    return as_markdown(text if len(text) <= _LONGEST_OUTCOME else f"{text[:_LONGEST_OUTCOME]} ...")
