-- What Debezium needs in one database, made by a superuser there, after the service's migrations:
--   psql --dbname=users --set=slot=outbox_users --set=password_file=… --file=debezium/slot.sql
-- Run again, it changes nothing but the password.
\set ON_ERROR_STOP on
\set password `cat :password_file`

SELECT 'CREATE ROLE debezium LOGIN REPLICATION'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'debezium') \gexec
ALTER ROLE debezium PASSWORD :'password';
GRANT CONNECT ON DATABASE :"DBNAME" TO debezium;

-- Before the slot, since the slot's reader sees the publications of the moment that it reads.
-- Only inserts: that a row is deleted is no event.
SELECT 'CREATE PUBLICATION outbox FOR TABLE public.outbox WITH (publish = ''insert'')'
WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'outbox') \gexec
SELECT pg_create_logical_replication_slot(:'slot', 'pgoutput')
WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = :'slot');
