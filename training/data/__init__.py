"""From a snapshot's files to rows and batches. No model and no training loop."""
