"""What is promoted: the bundle's files, what they predict, and how MLflow and a server see them.

Others come in by `score_split`, `serving_check` and `mlflow_model`. Judges nothing.
"""
