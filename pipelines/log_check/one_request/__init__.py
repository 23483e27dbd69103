"""Shows what a model would see of one request of an event log; nothing is judged or published."""
