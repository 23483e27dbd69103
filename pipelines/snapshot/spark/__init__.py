"""Runs the two passes of a snapshot on a Spark cluster; what they compute is said outside."""
