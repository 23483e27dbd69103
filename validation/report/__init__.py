"""Pages and plots for people. Decides nothing."""
