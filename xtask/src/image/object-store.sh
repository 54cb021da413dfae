#!/bin/sh
# Starts the S3 server on port 9000 over /data with one bucket, BUCKET. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are
# its keys.
set -e
export MINIO_ROOT_USER="${AWS_ACCESS_KEY_ID:?is missing}" MINIO_ROOT_PASSWORD="${AWS_SECRET_ACCESS_KEY:?is missing}"
mkdir -p "/data/${BUCKET:?is missing}"
exec minio server --quiet --address :9000 "$@" /data
