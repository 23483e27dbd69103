"""What is known of models and snapshots: runs, versions, the champion, its moves. No verdict."""
