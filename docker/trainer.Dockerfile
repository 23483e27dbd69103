# The stages: snapshot, gates, training, comparison. No Airflow in target `trainer`; target `worker`
# adds a Celery worker of Airflow, which runs the stages as its own processes; target `ranker` has only
# what serving imports. From the repository's root:
#   docker build --file docker/trainer.Dockerfile --target trainer --build-arg CODE_VERSION="$(git describe --always --dirty --abbrev=12)" .
# For GPUs: --build-arg TORCH_VARIANT=cu130 --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG BASE_IMAGE=docker.io/library/python:3.11-slim

FROM ${BASE_IMAGE} AS build-torch
# A mirror of the package index, or a folder of wheels, is given by pip's own variables.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG TORCH_VERSION=2.13.0
ARG TORCH_VARIANT=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/homefeed
COPY constraints.txt requirements.txt ./
COPY docker/pins.sh ./docker/
COPY docker/requirements ./docker/requirements
RUN docker/pins.sh requirements.txt > pins.txt \
 && /opt/homefeed/bin/python -m pip install "torch==${TORCH_VERSION}+${TORCH_VARIANT}" \
      --constraint constraints.txt --constraint pins.txt \
      ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"}

FROM build-torch AS code
COPY pyproject.toml ./
COPY pipelines ./pipelines
COPY training ./training
COPY validation ./validation
RUN /opt/homefeed/bin/python -m pip wheel --no-deps --wheel-dir /code .

FROM build-torch AS build-ranker
RUN /opt/homefeed/bin/python -m pip install --requirement docker/requirements/ranker.txt \
      --constraint constraints.txt --constraint pins.txt
COPY --from=code /code /code
RUN /opt/homefeed/bin/python -m pip install --no-deps /code/*.whl

FROM build-torch AS build
RUN /opt/homefeed/bin/python -m pip install --requirement docker/requirements/trainer.txt \
      --constraint constraints.txt --constraint pins.txt
COPY --from=code /code /code
RUN /opt/homefeed/bin/python -m pip install --no-deps /code/*.whl

FROM build AS build-worker
RUN /opt/homefeed/bin/python -m pip install --requirement docker/requirements/airflow.txt \
      --constraint constraints.txt --constraint pins.txt

FROM ${BASE_IMAGE} AS runtime
ARG CODE_VERSION=unknown
ARG BASE_IMAGE
LABEL org.opencontainers.image.version="${CODE_VERSION}" \
      org.opencontainers.image.revision="${CODE_VERSION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
RUN useradd --uid 50000 --gid 0 --no-create-home --home-dir /opt/airflow airflow \
 && mkdir --parents --mode=0775 /opt/airflow /opt/airflow/logs /scratch \
 && chown 50000:0 /opt/airflow /opt/airflow/logs /scratch
ENV PATH=/opt/homefeed/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TMPDIR=/scratch \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    HOMEFEED_IMAGE_VERSION=${CODE_VERSION}
USER 50000:0
WORKDIR /opt/airflow
# Shards and work folders under way, which may take more than a memory's worth.
VOLUME ["/scratch"]

FROM runtime AS trainer
LABEL org.opencontainers.image.title="homefeed_retrain: stages"
COPY --from=build /opt/homefeed /opt/homefeed
ENTRYPOINT ["homefeed"]
CMD ["--help"]

FROM runtime AS ranker
LABEL org.opencontainers.image.title="homefeed_retrain: server of rankings"
COPY --from=build-ranker /opt/homefeed /opt/homefeed
# The models that it has fetched, and answers on their way into the log.
ENV HOMEFEED_HOME=/scratch
EXPOSE 8500
# Not /ready: where nothing was promoted yet, a server that waits for the first model is well.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8500/health', timeout=4)"]
ENTRYPOINT ["homefeed", "serve"]

FROM runtime AS worker
LABEL org.opencontainers.image.title="homefeed_retrain: Celery worker with the stages"
COPY --from=build-worker /opt/homefeed /opt/homefeed
COPY dags /opt/homefeed/dags
COPY docker/health.py /opt/homefeed/docker/
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/homefeed/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=false
VOLUME ["/opt/airflow"]
HEALTHCHECK --interval=30s --timeout=25s --start-period=60s --retries=6 \
  CMD ["python3", "/opt/homefeed/docker/health.py"]
ENTRYPOINT ["airflow"]
CMD ["celery", "worker"]
