#!/bin/sh
# Ceph's S3 gateway with one monitor and one disk in /var/lib/ceph, inside one container. What was
# written there outlives kills. Not for production: nothing is replicated, and its parts trust each
# other, because they listen on this container's own address alone.
set -eu
data=/var/lib/ceph
conf=/etc/ceph/ceph.conf
fsid=6f0c1c5e-1e0b-4c6f-9a53-f8a4d7d0d0c1
disk=0b3e8a52-5a4e-4b0e-9d5f-1d1c9f3f7a11
export CEPH_CONF=$conf
mkdir -p "$data/osd" "$data/rgw" /run/ceph

if [ ! -e "$data/mon/made" ]; then
  # One that was killed while it was made is made anew: nothing can be in it yet.
  rm -rf "$data/mon"; mkdir "$data/mon"
  monmaptool --create --fsid $fsid --addv a '[v2:127.0.0.1:3300]' /tmp/monmap
  ceph-mon --mkfs --id a --monmap /tmp/monmap
  touch "$data/mon/made"
fi
# A part that has ended while it is waited for ends the container, which is started again.
wait_for() {  # process, command
  process=$1; shift
  until "$@"; do
    kill -0 "$process" || { echo "process $process ended while it was waited for" >&2; exit 1; }
    sleep 0.2
  done
}
mon_is_up() { ceph --connect-timeout 3 mon stat > /dev/null 2>&1; }
osd_is_up() { ceph --connect-timeout 3 osd stat 2> /dev/null | grep -q '1 up'; }

ceph-mon --foreground --id a &
wait_for $! mon_is_up
if [ ! -e "$data/osd/made" ]; then
  find "$data/osd" -mindepth 1 -delete
  ceph osd new $disk
  ceph-osd --mkfs --id 0 --osd-uuid $disk
  touch "$data/osd/made"
fi
ceph-osd --foreground --id 0 &
wait_for $! osd_is_up

key() { sed -n "s/^$1 *= *//p" /run/secrets/aws_credentials; }
user=homefeed
if ! radosgw-admin --name client.rgw.a user info --uid=$user > /dev/null 2>&1; then
  # In the environment of this one command, since arguments stand in every list of processes.
  CEPH_ARGS="--access-key=$(key aws_access_key_id) --secret-key=$(key aws_secret_access_key)" \
    radosgw-admin --name client.rgw.a user create --uid=$user --display-name=$user > /dev/null
fi
# The container ends with whichever part ends first, and is started again.
radosgw --foreground --name client.rgw.a &
wait -n
