"""From a snapshot's files to batches. No model and no training loop."""
