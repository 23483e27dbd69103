#!/bin/sh
# Starts what it is given. A word that is no program's name here is a command of Airflow's, so that
# `homefeed-airflow scheduler` works, and `airflow ...`, `bash -c ...` and `python -m ...` do, as
# Airflow's own chart writes them.
set -eu
case "${1:-}" in
  airflow | bash | sh | python | python3) exec "$@" ;;
  *) exec airflow "$@" ;;
esac
