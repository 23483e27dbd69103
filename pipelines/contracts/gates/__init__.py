"""Options of the gates: what data, models and bundles are held to. Not for judging."""
