#!/bin/sh
# Makes a database and a user each for Airflow and MLflow, when the server's folder is made. Run by
# the entry point of PostgreSQL's own image, which reads it where it is not executable.
set -eu
for name in airflow mlflow; do
  # The password goes in by standard input: an argument would stand in the list of processes.
  psql --username postgres --set ON_ERROR_STOP=1 --quiet <<SQL
CREATE USER $name PASSWORD '$(cat "/run/secrets/${name}_database_password")';
-- A server of another locale would give it another encoding, and its clients would read bytes.
CREATE DATABASE $name OWNER $name ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE $name FROM PUBLIC;
SQL
done
