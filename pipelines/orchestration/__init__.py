"""What Airflow is given: operators, retries, callbacks, schedule. The DAG file wires them."""
