-- One chunk of sign-ups, as the accounts service writes it: 500 accounts, their first entries, their
-- outbox rows, the names and the inbox; one partition for each client.
BEGIN;
SELECT next_offset FROM progress
    WHERE subscriber = 'floor' AND topic = 'floor' AND partition = :client_id FOR UPDATE;
INSERT INTO inbox
    SELECT 'accounts.open-account', 'users.user', uuidv7()::text, 1, uuidv7()
    FROM generate_series(1, 500)
    ON CONFLICT (subscriber, topic, subject) DO UPDATE
    SET last_sequence = excluded.last_sequence, greatest_event_id = excluded.greatest_event_id;
INSERT INTO inbox
    SELECT 'accounts.know-owners', 'users.user', uuidv7()::text, 1, uuidv7()
    FROM generate_series(1, 500)
    ON CONFLICT (subscriber, topic, subject) DO UPDATE
    SET last_sequence = excluded.last_sequence, greatest_event_id = excluded.greatest_event_id;
INSERT INTO owners SELECT left(md5(gen_random_uuid()::text), 10), uuidv7()
    FROM generate_series(1, 500) ON CONFLICT (username) DO NOTHING;
WITH ids AS MATERIALIZED (SELECT uuidv7() AS id FROM generate_series(1, 500)), opened AS (
    INSERT INTO accounts (id, kind, user_id, currency, balance, last_position, opened_at, version,
        sequence)
    SELECT id, 'personal', uuidv7(), 'USD', 0, 1, now(), 1, 1 FROM ids
), entered AS (
    INSERT INTO ledger_entries (transaction_id, account_id, position, delta, balance_after,
        description, occurred_at)
    SELECT uuidv7(), id, 1, 0, 0, 'Initial', now() FROM ids
)
INSERT INTO outbox (id, aggregatetype, aggregateid, type, sequence, payload, headers, created_at)
    SELECT uuidv7(), 'accounts.account', id::text, 'accounts.account-opened.v1', 1,
        convert_to(repeat('x', 653), 'UTF8'),
        jsonb_build_object('content-type', 'application/cloudevents+json',
            'type', 'accounts.account-opened.v1', 'id', uuidv7(), 'subject', id,
            'sequence', '0000000001', 'traceparent', repeat('x', 55)),
        now()
    FROM ids;
UPDATE progress SET next_offset = next_offset + 500, updated_at = now()
    WHERE subscriber = 'floor' AND topic = 'floor' AND partition = :client_id;
COMMIT;
