"""The ranking model and its loss. It reads no files and knows nothing of the training loop."""
