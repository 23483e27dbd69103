"""What is promoted: the bundle's files, what they predict, and how MLflow and a server see them.

A training makes its bundle by `files` and `calibration`. Everybody
else comes in by `score_split`, `serving_check` and `mlflow_model`. The serving check lists what
stands in the way of serving; how well a model ranks is judged in `validation.model_gate`.
"""
