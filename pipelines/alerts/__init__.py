"""What people are told about a cycle, and how the message travels. Decides nothing."""
