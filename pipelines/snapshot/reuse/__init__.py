"""What was read of the event log's days, kept on a disk for the snapshots to come."""
