"""Airflow and MLflow on this machine: `make retrain` and `make ui`. Not for production."""
