"""The ranking model and its loss. No files and no training loop."""
