#!/bin/sh
# Builds the images and prints their sizes. From anywhere; with docker, or podman where no docker runs.
#   ENGINE        docker or podman, with options that go before `build`, e.g. "podman --runtime runc"
#   BASE_IMAGE    what the images are built on, with Python 3.11 or newer as python3
#   BUILD_OPTIONS further options, e.g. "--network=host --build-arg TORCH_VARIANT=cu130 ..."
set -eu
cd "$(dirname "$0")/.."
if [ -z "${ENGINE:-}" ]; then
  for each in docker podman; do  # A docker without its daemon answers nothing.
    if "$each" info >/dev/null 2>&1; then ENGINE=$each; break; fi
  done
fi
if [ -z "${ENGINE:-}" ]; then
  echo "neither docker nor podman answers \`info\`; expected one of them; start it, or set ENGINE" >&2
  exit 69
fi
version=$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
build() {  # image, Dockerfile, further options
  image=$1 file=$2; shift 2
  # Not quoted: options are several words.
  # shellcheck disable=SC2086
  $ENGINE build --file "docker/$file.Dockerfile" --tag "homefeed-$image:$version" \
    --tag "homefeed-$image:latest" --build-arg CODE_VERSION="$version" \
    ${BASE_IMAGE:+--build-arg BASE_IMAGE="$BASE_IMAGE"} ${BUILD_OPTIONS:-} "$@" .
}
build airflow airflow
build mlflow mlflow
build trainer trainer --target trainer
build worker trainer --target worker
build ranker trainer --target ranker
build s3 s3
# shellcheck disable=SC2086
$ENGINE images --filter reference='*homefeed-*:latest'
