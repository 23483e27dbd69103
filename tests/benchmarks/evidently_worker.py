"""Runs in Evidently's own environment: says of each pair of tables how many columns drifted.

Every folder below the given one holds `reference.parquet` and `current.parquet`. Prints a JSON
object: the folder's name, and the share of columns that drift by the library's own defaults.
"""

import json
import sys
import warnings
from pathlib import Path

import pandas as pd


def main(root: Path) -> None:
    """Judge all pairs."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    warnings.simplefilter("ignore")
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("current", "reference")]
        try:
            metrics = Report([DataDriftPreset()]).run(*tables).dict()["metrics"]
        except ValueError:  # a column is in one table alone, which is told as well
            found[folder.name] = 1.0
            continue
        (shares,) = (
            each["value"]["share"]
            for each in metrics
            if isinstance(each["value"], dict) and "share" in each["value"]
        )
        found[folder.name] = float(shares)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
