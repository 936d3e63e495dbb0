-- Accounts number $1 to $2, with one entry each.
WITH given AS MATERIALIZED (
    SELECT uuidv7() AS id, CAST(md5('user ' || n) AS uuid) AS user_id
    FROM generate_series($1::bigint, $2::bigint) AS n
), opened AS (
    INSERT INTO accounts (id, kind, user_id, currency, balance, last_position, opened_at, version,
        sequence)
    SELECT id, 'personal', user_id, 'USD', 0, 1, now(), 1, 1 FROM given
)
INSERT INTO ledger_entries (transaction_id, account_id, position, delta, balance_after,
    description, occurred_at)
SELECT uuidv7(), id, 1, 0, 0, 'Initial', now() FROM given
