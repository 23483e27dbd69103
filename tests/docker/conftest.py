"""Sets AIRFLOW_HOME before a test module imports Airflow."""

from support.airflow_home import use_temporary_airflow_home

use_temporary_airflow_home()
