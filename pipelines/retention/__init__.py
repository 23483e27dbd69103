"""What is old and needed by nobody is found and deleted. The record itself is never deleted."""
