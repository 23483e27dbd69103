"""What Airflow's own pages show of a cycle in words: a run's note and the options of the form."""
