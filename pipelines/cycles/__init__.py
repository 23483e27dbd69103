"""What became of each cycle, read from its manifests: one answer for status, index and summary."""
