"""Simple ways to rank that every model is held against; they are not for serving anybody."""
