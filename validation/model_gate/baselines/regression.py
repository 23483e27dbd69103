"""A logistic regression of the target's label on a snapshot's numbers: a model without sequences.

It says what the numbers alone are worth. It is fitted in seconds on training rows, and the holdout
takes no part in it. Its settings were fixed before any model was tuned against it. Not for serving.

Letters: N examples, F numeric columns.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.errors import DataContractError

FloatArray = NDArray[np.float64]

NAME = "logistic regression"
MAX_ITERATIONS = 1_000
REGULARISATION = 1.0  # scikit-learn's C: its default


def fit_and_score(
    training_NF: FloatArray, label_N: np.ndarray, holdout_NF: FloatArray
) -> FloatArray:
    """Return the log-odds that a regression gives to the holdout's examples.

    Args:
        training_NF: numbers of the training examples, finite.
        label_N: 0 or 1, the target's label of the training examples.
        holdout_NF: the same numbers of the holdout's examples, finite.

    Raises:
        DataContractError: there is no number, or all labels are the same.
    """
    if training_NF.shape[1] == 0:
        raise DataContractError("there is no numeric feature; expected at least one to regress on")
    if label_N.min(initial=1) == label_N.max(initial=0):
        raise DataContractError(
            f"all {len(label_N):,} training labels are the same; expected some of both"
        )
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=REGULARISATION, max_iter=MAX_ITERATIONS)
    model = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(training_NF, label_N)
        except ConvergenceWarning as warning:
            raise DataContractError(
                f"the regression on {training_NF.shape[1]} numbers did not settle within "
                f"{MAX_ITERATIONS} steps ({warning}); expected it to; look at the numeric features"
            ) from warning
    return np.asarray(model.decision_function(holdout_NF), dtype=np.float64)
