"""Writes docs/benchmarks.md from results.json. The page is generated; edit neither by hand."""

import re
from pathlib import Path

from record import Row, load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"

HEAD = """# Benchmarks

Written by `make bench` from `tests/benchmarks/results.json`, which has all of each row (seeds, the
machine, its date), and the rows `stage_*`. Every machine had two cores. A ratio is the figure
divided by the peer's (`encoder_`: the peer's by ours), both of one run. `world_` rows are on the
simulated world; the code of these and of `peers_` is in the tree of 28 November 2026, that of
`ledger_` is the `bench_ledger.py` of 2 December.

| name | figure | ratio | peer | spread |
|---|---|---|---|---|
"""
PEERS = """
## Against other models

Rows `peers_*`: the Complete Journey sample's holdout (as_of 2017-06-12), the recipe as it is and
without its count of past engagements. HIT@3 is repins in the top 3, summed over a user's requests.
In brackets: the 95 % interval of the change against the recipe's model.

| model | AUC | HIT@3 | AUC without count | HIT@3 without count |
|---|---|---|---|---|
"""
RANKINGS = """
## Against simple rankings

Rows `quality_vs_<ranking>_<sample>`: how much more repins the model has in the top 3, by the
95 % interval of the first of two seeds.

| ranking | completejourney | world | world_fading |
|---|---|---|---|
"""
SMALL_LOGS = """
## Small logs

Rows `quality_vs_regression_<log>`: a proposed recipe against the regression, 95 % of two seeds.

| log | interval |
|---|---|
"""
_PEER = re.compile(r"peers_(?P<row>\w+?)_(?P<column>(?:auc|hit_at_3)(?:_without_count)?)$")
_AGAINST = re.compile(r"against (?:the )?model (.*? %)")
_SMALL_LOG = re.compile(r"quality_vs_regression_(?P<row>\w+)$")
_RANKING = re.compile(r"quality_vs_(?P<row>\w+?)_(?P<column>completejourney|world(?:_fading)?)$")


def page(rows: list[Row]) -> str:
    """Return the page's Markdown."""
    peers, rankings, small_logs, others = {}, {}, {}, []
    for row in rows:
        if found := _PEER.match(row.name):
            change = _AGAINST.search(row.spread)
            cell = f"{row.figure:.4f}" + (f" ({change[1]})" if change else "")
            peers.setdefault(found["row"], {})[found["column"]] = cell
        elif found := _SMALL_LOG.match(row.name):
            small_logs[found["row"]] = {"interval": row.spread.partition(": ")[2]}
        elif found := _RANKING.match(row.name):
            if found["row"] == "best_baseline":
                continue
            interval = row.spread.removeprefix("95 % of the seeds: ").partition(" and ")[0]
            rankings.setdefault(found["row"], {})[found["column"]] = interval
        elif not row.name.startswith("stage_"):
            others.append(row)
    columns = ("auc", "hit_at_3", "auc_without_count", "hit_at_3_without_count")
    samples = ("completejourney", "world", "world_fading")
    return (
        HEAD
        + "".join(map(_line, others))
        + PEERS
        + _matrix(peers, columns)
        + RANKINGS
        + _matrix(rankings, samples)
        + SMALL_LOGS
        + _matrix(small_logs, ("interval",))
    )


def _matrix(cells: dict[str, dict[str, str]], columns: tuple[str, ...]) -> str:
    lines = ((name, *(of.get(column, "") for column in columns)) for name, of in cells.items())
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _line(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    number = f"{row.figure:,.0f}" if row.figure >= 1e4 else f"{row.figure:.4g}"
    peer = (row.peer or "").partition(" (no sequence")[0]
    spread = row.spread.replace("95 % of the mean of the seeds", "95 %").partition("; seeds")[0]
    return f"| `{row.name}` | {number} {row.unit} | {ratio} | {peer} | {spread} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(load()))
