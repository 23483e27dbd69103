"""`homefeed anchor` and `homefeed recipe`: which recipe is accepted, and what a recipe says."""
