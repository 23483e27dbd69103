"""What a deployment is like now: status, faults, addresses. Reads for a person, changes nothing."""
