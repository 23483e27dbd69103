"""Retrains the Homefeed ranker every two weeks and promotes it only when the evidence says so.

    resolve_run -> build_snapshot -> check_snapshot -> train_challenger -> train_anchor
    train_anchor -> compare_with_champion
    compare_with_champion -> approve_promotion -> promote_challenger -> outcome
    compare_with_champion -> alert
    outcome -> promoted | anchor_promoted | held_back | rejected | inconclusive

**Red means that the pipeline broke.** A worse model is not red: its verdict is REJECT or
INCONCLUSIVE, and `alert` says why. **Of the last five tasks one is green: what the cycle came to.**
`promote_challenger` and `alert` are skipped where they have nothing to do, after they have
published what was decided. The run's note has the outcome in words.
`train_anchor` trains the accepted recipe where the run's is another one.

**Approval**: where the recipe wants a person's (`promotion.approval`), `approve_promotion` waits
for it, under *Required Actions*. It is skipped where nobody is asked, and where the answer is no or
does not come in time: then the champion stays. Its time ends two hours before the run's, and before
the next cycle is due.

**Late**: a cycle that nobody started on its date runs later, once, as of its own date, up to half a
period late. A run that starts too late skips itself: `resolve_run` is skipped, and an alert names
every cycle that did not run. Clear a skipped run to run it all the same. A backfill never promotes.

**Retries**: a failure that may pass is tried twice more; bad data (exit code 65), a refused
promotion (77), bad configuration (78) and bad usage (64) fail at once. Clearing a task is safe: a
stage that has published returns what it published, and is run again only if its inputs have changed
or a file that it published is gone. A promotion that a person has rolled back is not made again.

**On call**: `docs/runbook.md` has a section for each kind of alert and each exit code. The asset
`homefeed/champion` is updated by a run that promoted, and by no other.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAlias, Param, task
from airflow.sdk.exceptions import AirflowSkipException

from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import MAX_DEVICES
from pipelines.contracts.judgement import ENDS, Judgement, Promotion, end_of
from pipelines.orchestration.approval import PromotionApproval
from pipelines.orchestration.operators import stage_operator
from pipelines.orchestration.retries import StageRetryPolicy, put_off
from pipelines.orchestration.runs import alert_broken_run, start_cycle, tell_ended_run
from pipelines.orchestration.schedule import grid_of
from pipelines.orchestration.timetable import GridTimetable
from pipelines.recipes import RECIPES
from pipelines.recipes.references import EXPECTED
from pipelines.settings import DAG_ID, Settings

SETTINGS = Settings()
SCHEDULE = GridTimetable(grid_of(SETTINGS))
CHAMPION = Asset(name="homefeed/champion", uri="homefeed://champion")
# An alias may stay silent; a plain outlet would announce a new champion after every run.
PROMOTED = AssetAlias("homefeed/champion_if_promoted")

COUNT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": MAX_DEVICES}

PARAMS = {
    "as_of": Param(
        None,
        type=["null", "string"],
        format="date",
        title="As of",
        description="Use what was known before this day (UTC). Empty: the data interval's end, "
        "which is now in a run that a person triggers.",
    ),
    "recipe": Param(
        SETTINGS.recipe,
        type="string",
        # A wrong one is refused by `resolve_run` in words: of a pattern Airflow shows the schema.
        examples=sorted({*RECIPES, SETTINGS.recipe}),
        title="Recipe",
        description=f"Configuration: {EXPECTED}. HOMEFEED_RECIPE_PACKAGES: which packages.",
    ),
    "promote": Param(
        True,
        type="boolean",
        title="Promote",
        description="Promote if the verdict is PROMOTE. Off: only compare, also for earlier days.",
    ),
    "accelerator": Param(
        SETTINGS.accelerator,
        enum=["cpu", "gpu"],
        title="Accelerator",
        description=f"Train on it. This deployment's own is {SETTINGS.accelerator}.",
    ),
    "devices": Param(
        SETTINGS.devices,
        **COUNT,
        title="Devices",
        description="Training processes on each machine, one for each GPU.",
    ),
    "nodes": Param(
        SETTINGS.nodes,
        **COUNT,
        title="Machines",
        description="Machines that train together; more than one needs the kubernetes runner.",
    ),
}

DEFAULTS = {
    "retries": 2,
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(hours=1),
    "retry_policy": StageRetryPolicy(),
    "execution_timeout": timedelta(minutes=30),
    "pre_execute": put_off,
}


@task(task_id="resolve_run", inlets=[CHAMPION])
def resolve_task(params: Any = None, dag_run: Any = None, ti: Any = None) -> dict[str, Any]:
    """Fix as_of, the code and the champion's version; all that follows depends on these."""
    return start_cycle(params, dag_run, ti, Settings())


# What is before it is skipped where nobody is asked, and where the answer is no: it finds out.
@task(
    task_id="promote_challenger",
    outlets=[PROMOTED],
    trigger_rule="none_failed_min_one_success",
)
def promote_task(run_uri: str, outlet_events: Any = None, ti: Any = None) -> str:
    """Move the `champion` alias to what is promoted, if the champion is still the same."""
    from pipelines.stages.runner import read_artifact, run_stage

    manifest_uri = run_stage("promote_challenger", run_uri)
    ti.xcom_push("return_value", manifest_uri)  # what is skipped below returns nothing
    found = read_artifact(run_uri, "promote_challenger", Promotion)
    if not found.is_promoted or found.champion_after is None:
        raise AirflowSkipException(f"nothing was promoted: {found.reason}")
    extra = {"version": found.champion_after.version, "reason": found.reason}
    outlet_events[PROMOTED].add(CHAMPION, extra=extra)
    return manifest_uri


# Where nothing was promoted, the task before is skipped; where nothing was judged, this one is.
@task.branch(task_id="outcome", trigger_rule="none_failed_min_one_success")
def outcome_task(run_uri: str) -> str:
    """Make the cycle's end green in the grid, and skip the other ends."""
    from pipelines.stages.runner import read_artifact

    judgement = read_artifact(run_uri, "compare_with_champion", Judgement)
    return end_of(judgement, read_artifact(run_uri, "promote_challenger", Promotion))


@task(task_id="alert")
def alert_task(run_uri: str, ti: Any = None) -> str:
    """Tell people when the verdict is not PROMOTE, or when a loss is certain."""
    from pipelines.stages.runner import read_artifact, run_stage

    manifest_uri = run_stage("alert", run_uri)
    ti.xcom_push("return_value", manifest_uri)
    if read_artifact(run_uri, "alert", AlertReceipt).alert is None:
        raise AirflowSkipException("nobody had to be told: a promotion is no reason to")
    return manifest_uri


with DAG(
    dag_id=DAG_ID,
    schedule=SCHEDULE,
    # Where the first cycle's data interval begins: that cycle is due when the interval ends.
    start_date=SCHEDULE.grid.start - SCHEDULE.period,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=3),
    default_args=DEFAULTS,
    on_failure_callback=alert_broken_run,
    on_success_callback=tell_ended_run,
    params=PARAMS,
    doc_md=__doc__,
    tags=["homefeed"],
) as homefeed_retrain:
    resolved: Any = resolve_task()
    run_uri, hardware = resolved["run_uri"], resolved["hardware"]
    build = stage_operator("build_snapshot", run_uri, timedelta(hours=6), SETTINGS)
    check = stage_operator("check_snapshot", run_uri, timedelta(hours=2), SETTINGS)
    train = stage_operator("train_challenger", run_uri, timedelta(hours=18), SETTINGS, hardware)
    anchor = stage_operator("train_anchor", run_uri, timedelta(hours=18), SETTINGS, hardware)
    compare = stage_operator(
        "compare_with_champion", run_uri, timedelta(hours=4), SETTINGS, hardware
    )
    approve = PromotionApproval(task_id="approve_promotion", run_uri=run_uri)
    promote, alert = promote_task(run_uri), alert_task(run_uri)
    # The run is red if a leaf fails, and neither the outcome nor the alert hides the other.
    resolved >> build >> check >> train >> compare >> [promote, alert]
    compare >> approve >> promote
    outcome = outcome_task(run_uri)
    [compare, promote] >> outcome >> [EmptyOperator(task_id=name) for name in ENDS]
    # On one machine the two trainings would fight for it; elsewhere each has a machine of its own.
    (train if SETTINGS.stage_runner == "bash" else check) >> anchor >> compare
