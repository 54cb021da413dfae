#!/bin/sh
# Starts PostgreSQL, in a new cluster when PGDATA holds none. POSTGRES_PASSWORD is the password of POSTGRES_USER
# (postgres), who owns POSTGRES_DB (postgres). Arguments go to postgres; `postgres` before them is allowed.
set -e
: "${PGDATA:=/var/lib/postgresql/data}" "${POSTGRES_USER:=postgres}"
export PGDATA
[ "$1" = postgres ] && shift
case $1 in
-* | '') ;;
*) exec "$@" ;;
esac
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	: "${POSTGRES_PASSWORD:?is missing}"
	printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
	initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 --locale=C.UTF-8 --data-checksums
	rm /tmp/password
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	echo 'host replication all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	if [ -n "$POSTGRES_DB" ] && [ "$POSTGRES_DB" != postgres ]; then
		printf 'create database "%s";\n' "$POSTGRES_DB" | postgres --single -jE postgres
	fi
fi
# A volume of a group (fsGroup) is open to that group, which the server refuses.
chmod 700 "$PGDATA"
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
