"""Tells anew what became of cycles: the index `<workspace>/cycles.html`, versions in MLflow.

The index is a function of what the workspace holds, without a clock, and is put in place whole. Who
has written it renders it once more, and writes again where that differs: so of stages that end at
once the last one to write has seen the news of all. Tested in tests/pipelines/cycles/test_index.py.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterator

from pipelines import storage
from pipelines.alerts.compose import compose_moved
from pipelines.alerts.incidents import find_open
from pipelines.alerts.rendering import to_markdown
from pipelines.alerts.transports import deliver
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.cycle import IndexFacts, MeasuredLift, ServingSpan
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import CYCLE_INDEX, StageRecord, manifest_uri
from pipelines.cycles import ledger
from pipelines.cycles.reading import newest_cycles, outcome_now, run_names
from pipelines.monitor.watching import decay_of, read_watch
from pipelines.plain_text import as_markdown, one_line
from pipelines.registry import registry, tracking
from pipelines.registry.history import History, load, name_of
from pipelines.settings import Settings

log = logging.getLogger(__name__)

TELLING = ("compare_with_champion", "promote_challenger", "alert")
"""Stages after whose end the index has something new to tell."""
MAX_CYCLES = 260
"""Ten years of fortnights. The index tells of the newest; older ones are in the run folders."""
_TURNS = 5
"""How often the index is written at most, because the workspace has changed meanwhile."""


def read_index(workspace_uri: str, settings: Settings) -> IndexFacts:
    """Return all that the index tells.

    Raises:
        HomefeedError: the list of runs or the history cannot be read.
    """
    names = run_names(workspace_uri)
    known = load(workspace_uri, settings.registered_model)
    spans = [
        ServingSpan(
            model=entry.model.label,
            as_of=entry.model.as_of,
            since=entry.moved_at,
            kind=entry.kind,
            reason=one_line(entry.reason),
        )
        for entry in known.in_time.moves
    ]
    problem = f"Damaged or gone: {', '.join(known.damaged)}." if known.damaged else ""
    measured = tuple[MeasuredLift, ...]()
    try:
        measured = ledger.of_main_metric(ledger.read(workspace_uri, settings.registered_model))
    except DataContractError as error:
        problem = f"{problem} {one_line(str(error))}".strip()
    decay = None
    with contextlib.suppress(DataContractError, ConfigurationError):
        decay = decay_of(known)
    return IndexFacts(
        workspace_uri=workspace_uri,
        registered_model=settings.registered_model,
        prices=(settings.core_hour_price, settings.gpu_hour_price),
        cycles=newest_cycles(workspace_uri, names, settings, MAX_CYCLES),
        num_cycles=len(names),
        champions=tuple(reversed(spans)),
        ledger=measured,
        accounts=ledger.account(measured),
        watch=read_watch(settings.model_copy(update={"workspace": workspace_uri})),
        broken=tuple(each.sentence for each in find_open(settings).values()),
        problem=problem,
        decay=decay,
    )


@contextlib.contextmanager
def keeping_index(
    stage: str, workspace_uri: str, registered_model: str, run_uri: str = ""
) -> Iterator[None]:
    """Write the index anew when a stage has ended that changes what it tells, or has failed.

    The block runs the stage. What keeps the index from being written is told and reddens no stage.
    """
    try:
        yield
    except Exception:
        refresh_index(workspace_uri, registered_model)
        raise
    if stage == "promote_challenger":
        tell_moved(workspace_uri, registered_model, run_uri)
    elif stage in TELLING:
        refresh_index(workspace_uri, registered_model)


def tell_moved(workspace_uri: str, registered_model: str, run_uri: str = "") -> None:
    """Tell anew what a move has changed: the index, and in MLflow the versions that it is about.

    These are the version that serves, the one before, and those of a cycle that has just decided.
    Of a rollback and of a repair people are told once. What cannot be told is warned of, and is no
    error: the move is made, and what a transport did not take is sent later.
    """
    refresh_index(workspace_uri, registered_model)
    try:
        known = load(workspace_uri, registered_model)
        if known.last and known.last.kind in ("rollback", "outside"):
            settings = Settings(registered_model=registered_model, workspace=workspace_uri)
            deliver(compose_moved(known.last, settings), settings)
        moved = [known.last.model, known.last.previous] if known.last else []
        asked = {move.run_uri for move in known.moves if move.run_uri and move.model in moved}
        for uri in sorted(asked | {run_uri} - {""}):
            _describe(storage.join(workspace_uri, "runs", name_of(uri)), known)
    except Exception as error:
        log.warning("not all of what the move changes was told: %s", error)


def _describe(run_uri: str, known: History) -> None:
    """Describe the versions that a judged cycle has trained by what became of them."""
    first, second = (
        storage.read_model(manifest_uri(run_uri, stage), StageRecord).artifact
        for stage in ("resolve_run", "compare_with_champion")
    )
    run, judgement = ResolvedRun.model_validate(first), Judgement.model_validate(second)
    settings = Settings(tracking_uri=run.tracking_uri, registered_model=run.registered_model)
    told = to_markdown(outcome_now(run, judgement, settings, serves=""))
    client = tracking.connect(run.tracking_uri)
    trained = [judgement.comparison.challenger_model]
    for model in trained + ([judgement.anchor.model] if judgement.anchor else []):
        served = as_markdown(_served(model, known))
        registry.tag_version(client, model, {}, f"{served}\n\n{told}".strip())


def _served(model: ModelRef, known: History) -> str:
    """Say from when and until when a version has served last; '' where it never has."""
    moves = known.in_time.moves
    for move, after in reversed([*itertools.zip_longest(moves, moves[1:])]):
        if move.model.version == model.version:
            until = f" until {after.moved_at:%Y-%m-%d %H:%M} UTC" if after else ""
            why = f", then {after.model.label} ({after.kind}: {after.reason})" if after else ""
            verb = "Served from" if after else "Serves since"
            return one_line(f"{verb} {move.moved_at:%Y-%m-%d %H:%M} UTC{until}{why}.")
    return ""


def refresh_index(workspace_uri: str, registered_model: str) -> None:
    """Write the index anew; what keeps it from being written is told, and is no error.

    Where the workspace changes all the time, whoever changes it writes the index after that.
    """
    uri, page = storage.join(workspace_uri, CYCLE_INDEX), ""
    try:
        from validation.report.cycles_page import render_cycles

        settings = Settings(registered_model=registered_model)
        for _ in range(_TURNS):
            written, page = page, render_cycles(read_index(workspace_uri, settings))
            if page == written:
                break
            storage.write_bytes(uri, page.encode())
    except Exception as error:  # The stage's own end is what people must learn of.
        log.warning(
            "the index of all cycles in %s was not written anew (%s: %s); nothing else is "
            "affected, Airflow's page Homefeed shows it, and the next cycle writes it",
            *(workspace_uri, type(error).__name__, error),
        )
