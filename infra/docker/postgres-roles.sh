#!/bin/bash
# Runs once, on the empty data folder: the login roles of the trail, and the registry's own
# database. The application grants what each role may do when it migrates.
set -euo pipefail

# Passwords reach psql as variables and are quoted by it; they never stand in a command line.
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
\getenv writer AUDIT_WRITER_PASSWORD
\getenv reader AUDIT_READER_PASSWORD
\getenv redactor AUDIT_REDACTOR_PASSWORD
\getenv signer AUDIT_SIGNER_PASSWORD
\getenv auditor AUDIT_AUDITOR_PASSWORD
\getenv registry AUDIT_REGISTRY_PASSWORD
CREATE ROLE audit_writer LOGIN BYPASSRLS PASSWORD :'writer';
CREATE ROLE audit_reader LOGIN PASSWORD :'reader';
CREATE ROLE audit_redactor LOGIN PASSWORD :'redactor';
CREATE ROLE audit_signer LOGIN PASSWORD :'signer';
CREATE ROLE audit_auditor LOGIN BYPASSRLS PASSWORD :'auditor';
CREATE ROLE registry LOGIN PASSWORD :'registry';
CREATE DATABASE registry OWNER registry;
SQL
