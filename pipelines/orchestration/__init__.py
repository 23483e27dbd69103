"""What Airflow is given: operators, retries, callbacks, timetable. No stage's work is done here."""
