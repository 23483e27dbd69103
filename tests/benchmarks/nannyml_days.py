"""NannyML's estimate of the AUC by day, without labels; run by `bench_monitor` in its environment.

    python nannyml_days.py REFERENCE ANALYSIS

Both are Parquet files: `at` is a time, `p` a calibrated probability, `y` its label (of the first
file only). Prints a list of one number for each day of the second.
"""

import json
import sys

import pandas as pd
from nannyml import CBPE

if __name__ == "__main__":
    reference, analysis = (
        pd.read_parquet(path).assign(y_pred=lambda rows: (rows["p"] > 0.5).astype(int))
        for path in sys.argv[1:]
    )
    estimator = CBPE(
        y_pred_proba="p",
        y_pred="y_pred",
        y_true="y",
        timestamp_column_name="at",
        metrics=["roc_auc"],
        chunk_period="D",
        problem_type="classification_binary",
    ).fit(reference)
    found = estimator.estimate(analysis).filter(period="analysis").to_df()
    sys.stdout.write(json.dumps(found["roc_auc", "value"].tolist()))
