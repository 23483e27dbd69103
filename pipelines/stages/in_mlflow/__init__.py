"""What the comparison leaves in MLflow, under names that both sides share; nothing is judged."""
