"""What MLflow and the history know of models: runs, versions, champion, its moves. No verdict."""
