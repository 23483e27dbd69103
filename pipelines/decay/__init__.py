"""The decay lab: past models scored on later windows, and what a cadence of retraining costs."""
