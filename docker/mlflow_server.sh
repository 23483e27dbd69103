#!/bin/sh
# Starts MLflow's server, or with the word `upgrade` brings its database to this version. The
# database's password stays in a file, as the database's own clients read it (PGPASSFILE); the
# sessions' key is in this server's environment, because it reads it nowhere else.
set -eu
umask 077
# A copy, because the clients refuse a file of passwords that others may read.
cp /run/secrets/mlflow_pgpass /tmp/pgpass
export PGPASSFILE=/tmp/pgpass
database=postgresql+psycopg2://mlflow@postgres/mlflow
if [ "${1:-}" = upgrade ]; then
  exec mlflow db upgrade "$database"
fi
MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat /run/secrets/mlflow_secret_key)
export MLFLOW_FLASK_SERVER_SECRET_KEY
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --serve-artifacts \
  --backend-store-uri "$database" \
  --artifacts-destination "$MLFLOW_ARTIFACTS_DESTINATION" --workers "${MLFLOW_WORKERS:-1}"
