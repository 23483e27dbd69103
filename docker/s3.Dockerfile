# The store of the profile `local-s3`: Ceph's S3 gateway from Debian's packages, on one disk. For
# trying the stack without a bucket of one's own; not one of the three images of a deployment.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim

FROM ${BASE_IMAGE}
ARG BASE_IMAGE
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}"
RUN apt-get update \
 && apt-get install --yes --no-install-recommends radosgw ceph-mon ceph-osd curl \
 && rm -rf /var/lib/apt/lists/* /var/lib/ceph && mkdir --parents /var/lib/ceph /run/ceph \
 && chown ceph:ceph /var/lib/ceph /run/ceph
COPY docker/s3/ceph.conf /etc/ceph/ceph.conf
RUN sed -i "s#^osd_class_dir = .*#osd_class_dir = $(echo /usr/lib/*/rados-classes)#" /etc/ceph/ceph.conf
COPY docker/s3/start.sh /opt/s3/start.sh
VOLUME ["/var/lib/ceph"]
USER ceph
EXPOSE 8000
ENTRYPOINT ["bash", "/opt/s3/start.sh"]
