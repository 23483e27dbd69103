# Airflow without torch: api-server, scheduler, dag-processor, triggerer, and a Celery worker that
# starts the heavy stages in containers of their own. Built from the repository's root:
#   docker build --file docker/airflow.Dockerfile --build-arg CODE_VERSION="$(git describe --always --dirty --abbrev=12)" .
ARG BASE_IMAGE=docker.io/library/python:3.11-slim

FROM ${BASE_IMAGE} AS build
# A mirror of the package index, or a folder of wheels, is given by pip's own variables.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/homefeed
COPY constraints.txt requirements.txt ./
COPY docker/pins.sh ./docker/
COPY docker/requirements ./docker/requirements
RUN docker/pins.sh requirements.txt > pins.txt \
 && /opt/homefeed/bin/python -m pip install --requirement docker/requirements/airflow.txt \
      --constraint constraints.txt --constraint pins.txt
COPY pyproject.toml ./
COPY pipelines ./pipelines
COPY training ./training
COPY validation ./validation
# Its dependencies are above: those of the heavy half are left out on purpose.
RUN /opt/homefeed/bin/python -m pip install --no-deps . \
 && /opt/homefeed/bin/python -m pip uninstall --yes pip \
 && find /opt/homefeed -type d \( -name tests -o -name include \) -path '*/pyarrow/*' \
      -prune -exec rm -rf {} +

FROM ${BASE_IMAGE}
ARG CODE_VERSION=unknown
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="homefeed_retrain: Airflow" \
      org.opencontainers.image.version="${CODE_VERSION}" \
      org.opencontainers.image.revision="${CODE_VERSION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
# 50000 is the user of Airflow's own images; group 0, so that a cluster may choose another number.
RUN useradd --uid 50000 --gid 0 --no-create-home --home-dir /home/airflow airflow \
 && mkdir --parents --mode=0775 /home/airflow /opt/airflow /opt/airflow/logs \
 && chown 50000:0 /home/airflow /opt/airflow /opt/airflow/logs
COPY --from=build /opt/homefeed /opt/homefeed
COPY dags /opt/homefeed/dags
COPY docker/health.py docker/init.py /opt/homefeed/docker/
# Where Airflow's chart for Kubernetes calls it, in its probes too.
COPY docker/entrypoint.sh /entrypoint
ENV PATH=/opt/homefeed/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/homefeed/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=false \
    HOMEFEED_IMAGE_VERSION=${CODE_VERSION}
USER 50000:0
WORKDIR /opt/airflow
# What is written: AIRFLOW_HOME and /tmp, both of which may be volumes; the rest is read-only.
VOLUME ["/opt/airflow"]
# Of whichever part the container was started as.
HEALTHCHECK --interval=10s --timeout=20s --start-period=60s --retries=6 \
  CMD ["python3", "/opt/homefeed/docker/health.py"]
ENTRYPOINT ["/entrypoint"]
CMD ["version"]
