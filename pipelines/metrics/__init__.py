"""What a stage used and what came of it, as OpenTelemetry metrics, where the environment asks so.

`measured.py` is the door. Not for logs and alerts to people, and no stage's result depends on it.
"""
