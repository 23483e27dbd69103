#!/bin/sh
# Starts MLflow's server with its secrets from files. They are in the environment of this server
# alone, which starts nothing but its own workers.
set -eu
MLFLOW_BACKEND_STORE_URI=$(cat /run/secrets/mlflow_database_url)
MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat /run/secrets/mlflow_secret_key)
export MLFLOW_BACKEND_STORE_URI MLFLOW_FLASK_SERVER_SECRET_KEY
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --serve-artifacts \
  --artifacts-destination "$MLFLOW_ARTIFACTS_DESTINATION" --workers "${MLFLOW_WORKERS:-1}"
