"""Judges a challenger against the champion on one holdout: facts first, then one verdict.

Others come in by `facts.gather_facts` and `verdict.decide`. Scores come from `training.bundle`.
"""
