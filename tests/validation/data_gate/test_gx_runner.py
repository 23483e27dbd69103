"""Great Expectations runs the checks; a check that breaks is told from bad data."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.errors import HomefeedError
from support.data_gate import judge
from validation.data_gate import checks, gate


@pytest.mark.parametrize("table", ["days", "shards", "files", "pins"])
def test_a_broken_check_is_not_bad_data(
    planted_snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    broken = checks.Check(
        "broken", Severity.WARNING, "Looks at nothing.", table, "no_such_column", maximum=0
    )
    genuine = checks.make_checks
    monkeypatch.setattr(gate, "make_checks", lambda *a: (*genuine(*a), broken))

    with pytest.raises(HomefeedError, match="check 'broken' itself broke") as caught:
        judge(planted_snapshot, storage.local_path(planted_snapshot.uri), tmp_path)
    assert "no_such_column" in str(caught.value)
    assert caught.value.exit_code == 70
