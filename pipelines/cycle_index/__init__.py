"""Reads what became of all cycles, what they cost and who served, and writes the index of them."""
