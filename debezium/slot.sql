-- What Debezium needs in one database, made by a superuser there, after the service's migrations:
--   psql --dbname=users --set=slot=outbox_users --set=password_file=… --file=debezium/slot.sql
-- Run again, it changes the password, puts the table back into the publication, and replaces a slot
-- that was invalidated, of which what was not read is lost.
\set ON_ERROR_STOP on
-- A statement that fails is else in the server's log, with the password.
SET log_min_error_statement = panic;
\set password `cat :'password_file'`

SELECT 'CREATE ROLE debezium LOGIN REPLICATION'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'debezium') \gexec
ALTER ROLE debezium PASSWORD :'password';
GRANT CONNECT ON DATABASE :"DBNAME" TO debezium;

-- Before the slot, since its reader is given what was in a publication when it was written.
-- Only inserts: that a row is deleted is no event.
SELECT 'CREATE PUBLICATION outbox WITH (publish = ''insert'')'
WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'outbox') \gexec
ALTER PUBLICATION outbox SET TABLE public.outbox;
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
WHERE slot_name = :'slot' AND invalidation_reason IS NOT NULL;
-- A standby that synchronizes slots has it too.
SELECT pg_create_logical_replication_slot(:'slot', 'pgoutput', failover => true)
WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = :'slot');
