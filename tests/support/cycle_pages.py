"""Facts of many cycles, for the tests of the index."""

from datetime import UTC, datetime, timedelta

from pipelines.contracts.cycle import CycleFacts, IndexFacts, ServingSpan
from pipelines.contracts.judgement import Decision
from support.judgements import interval, make_failure, make_judgement, told
from support.outcome_pages import costs_of

FIRST = datetime(2017, 1, 5, tzinfo=UTC)
OUTCOMES = (
    ("judged", "PROMOTE", (0.03, 0.01, 0.05)),
    ("judged", "PROMOTE", (0.002, -0.006, 0.01)),  # a tie
    ("judged", "REJECT", (-0.12, -0.23, -0.04)),
    ("judged", "INCONCLUSIVE", (-0.01, -0.05, 0.03)),
    ("judged", "INCONCLUSIVE", None),  # void
    ("data gate failed", "", None),
    ("broken", "", None),
    ("not ended", "", None),
    ("not readable", "", None),
)
SAID = {
    "data gate failed": "num_saves fell by 67 % in 2017-03-01; expected at most 50 %.",
    "broken": "the process was killed by signal 9 (out of memory).",
}


def make_cycle(number: int, name: str = "homefeed_ranker") -> CycleFacts:
    """Return a cycle of each kind in turn."""
    state, decision, change = OUTCOMES[number % len(OUTCOMES)]
    as_of = FIRST + timedelta(days=14 * number)
    run_id = f"{as_of:%Y-%m-%d}--{number:08x}"
    is_readable, is_judged = state != "not readable", state == "judged"
    run_uri = f"file:///w/runs/{run_id}"
    outcome = told(make_judgement(Decision.PROMOTE)).model_copy(
        update={
            "decision": decision,
            "title": f"{name} v{number} was judged, repin_volume_at_3 cannot tell",
            "change": interval(*change) if change else None,
        }
    )
    return CycleFacts(
        run_id=run_id,
        run_uri=run_uri,
        as_of=as_of if is_readable else None,
        began_at=as_of + timedelta(hours=6) if is_readable else None,
        state=state,
        outcome=outcome if is_judged else None,
        page_uri=f"{run_uri}/compare_with_champion/output-1/verdict.html" if is_judged else "",
        is_void=is_judged and change is None,
        promoted=f"{name} v{number}" if decision == "PROMOTE" else None,
        failure=make_failure(message=SAID[state]) if state in SAID else None,
        next_stage="compare_with_champion",
        problem="" if is_readable else "the manifest of build_snapshot was edited",
        airflow_url=f"http://127.0.0.1:8080/dags/homefeed_retrain/runs/{run_id}",
        costs=costs_of() if is_readable else (),
    )


def make_facts(num: int, name: str = "homefeed_ranker") -> IndexFacts:
    """Return the facts of this many cycles; every kind of outcome is among each nine of them."""
    lines = [make_cycle(number, name) for number in reversed(range(num))]
    spans = list[ServingSpan]()
    for line in lines:
        if line.promoted and line.as_of and line.began_at:
            why = {"kind": "promotion", "reason": f"{line.promoted} beat the champion."}
            times = {"as_of": line.as_of, "since": line.began_at}
            spans.append(ServingSpan(model=line.promoted, **times, **why))
    return IndexFacts(
        workspace_uri="file:///w",
        registered_model=name,
        cycles=tuple(lines),
        num_cycles=num,
        champions=tuple(spans),
    )
