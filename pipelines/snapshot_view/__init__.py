"""What lies in a snapshot, for people: counted, compared with another, and its files verified."""
