"""What Airflow is given: operators, retries, callbacks, schedule, account of missed dates."""
