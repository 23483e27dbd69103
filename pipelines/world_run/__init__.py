"""A simulated world that answers: a policy ranks what its users are shown, day after day."""
