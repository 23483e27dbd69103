"""Pages for people. Decides nothing."""
