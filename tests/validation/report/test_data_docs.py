"""The Data Docs: what the overview says, and that nothing is fetched."""

import re
from pathlib import Path

from pipelines.contracts.artifacts import Snapshot
from support.data_gate import EXAMPLES, SHARD, judge
from support.snapshots import copy_snapshot, rewrite, with_value


def test_the_data_docs_read_offline(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    snapshot = rewrite(snapshot, folder, EXAMPLES, with_value("label_save", 9, 2))
    judge(snapshot, folder, tmp_path / "out")
    docs = tmp_path / "out" / "data_docs"

    overview = (docs / "index.html").read_text()
    assert (
        "Not accepted" in overview and "label_save is 2 in row 9" in overview and SHARD in overview
    )
    assert "labels_are_binary" in overview
    pages = sorted(docs.rglob("*.html"))
    assert len(pages) == 2 + 2 * 7  # overview and contents; each table's checks and what they found
    for page in pages:
        html = page.read_text()
        assert re.findall(r"https?://", html) == [], page
        for link in re.findall(r'href="([^"#]+\.html)"', html):
            assert (page.parent / link).is_file(), (page, link)
    assert sum(f.stat().st_size for f in docs.rglob("*") if f.is_file()) < 1_000_000
