"""The policy over years: its rules, evidence pooled over cycles, and simulated years of it."""
