# The MLflow server: runs and registry on PostgreSQL, artifacts in a bucket. Nothing is installed
# when it starts. Built from the repository's root:
#   docker build --file docker/mlflow.Dockerfile --build-arg CODE_VERSION="$(git describe --always --dirty --abbrev=12)" .
ARG BASE_IMAGE=docker.io/library/python:3.11-slim

FROM ${BASE_IMAGE} AS build
# A mirror of the package index, or a folder of wheels, is given by pip's own variables.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/mlflow
COPY constraints.txt requirements.txt ./
COPY docker/pins.sh ./docker/
COPY docker/requirements ./docker/requirements
RUN docker/pins.sh requirements.txt > pins.txt \
 && /opt/mlflow/bin/python -m pip install --requirement docker/requirements/mlflow.txt \
      --constraint constraints.txt --constraint pins.txt \
 && /opt/mlflow/bin/python -m pip uninstall --yes pip

FROM ${BASE_IMAGE}
ARG CODE_VERSION=unknown
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="homefeed_retrain: MLflow" \
      org.opencontainers.image.version="${CODE_VERSION}" \
      org.opencontainers.image.revision="${CODE_VERSION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
RUN useradd --uid 50001 --gid 0 --no-create-home --home-dir /tmp mlflow
COPY --from=build /opt/mlflow /opt/mlflow
COPY docker/mlflow_server.sh /opt/mlflow/docker/
ENV PATH=/opt/mlflow/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    MLFLOW_DISABLE_TELEMETRY=true
USER 50001:0
WORKDIR /tmp
EXPOSE 5000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["mlflow"]
CMD ["server", "--host", "127.0.0.1", "--port", "5000"]
