"""Losses and repeats: the statements that cause each, and the problem that is then reported."""

from dataclasses import dataclass
from typing import Final

# In statements, `{person}` is the id of a person who signed up, `{account}` that of their account,
# `{event}` that of the event, and `{sign_up}` is true for its audit record.

A_PARKED_SIGN_UP: Final = """
INSERT INTO parked (id, subscriber, topic, topic_id, partition, "offset", headers, subject,
    sequence, event_id, reason, error_code, error_message, tries, first_tried_at, last_tried_at)
    VALUES
    (gen_random_uuid(), 'accounts.open-account', 'users.user', gen_random_uuid(), 0, 0, '[]',
    '{person}', 1, '{event}', 'failed', 'x', 'x', 1, now(), now());
"""
AN_OUTBOX_ROW: Final = """
INSERT INTO outbox (id, aggregatetype, aggregateid, type, sequence, payload, headers,
    created_at) VALUES (gen_random_uuid(), 'users.user', '{person}', 'x', 2, '', '{}',
    now());
"""
A_ROW_SET_ASIDE: Final = """
INSERT INTO outbox_set_aside (position, id, aggregatetype, aggregateid, type, sequence,
    payload, headers, created_at, error_code, error_message, set_aside_at) VALUES (9,
    gen_random_uuid(), 'users.user', '{person}', 'x', 2, '', '{}', now(), 'x', 'x', now());
"""
A_TIMER: Final = """
INSERT INTO timers (id, subject, kind, data, due_at, correlation_id) VALUES
    (gen_random_uuid(), gen_random_uuid(), 'x', '{}', now() + interval '1 h', 'x');
"""
AND_IT_IS_PARKED: Final = """
INSERT INTO next_timers (subject, timer_id, claims, begun, tries, failures, error_code,
    error_message, parked_at)
    SELECT subject, id, 1, false, 1, 1, 'x', 'x', now() FROM timers;
"""
# The database itself refuses to change an entry, or to add one alone.
ANY_ENTRY: Final = "ALTER TABLE ledger_entries DISABLE TRIGGER USER;"
AN_ENTRY_OF_5: Final = f"""{ANY_ENTRY}
INSERT INTO ledger_entries (transaction_id, account_id, kind, delta, description, occurred_at)
    SELECT gen_random_uuid(), id, 'deposit', 5, 'Found', now() FROM accounts
    WHERE kind = 'cash' AND currency = 'USD';
"""  # noqa: S608 - the text is ours
AND_ONE_OF_MINUS_5: Final = """
INSERT INTO ledger_entries (transaction_id, account_id, kind, delta, description, occurred_at)
    SELECT gen_random_uuid(), account_id, kind, -5, description, occurred_at FROM ledger_entries
    WHERE delta = 5;
"""
# Of which the books know nothing wrong.
A_DEPOSIT_WITHOUT_ITS_EVENT: Final = """
UPDATE accounts SET balance = 5, last_position = 2 WHERE id = {account};
INSERT INTO ledger_entries (transaction_id, account_id, position, kind, delta, balance_after,
    description, occurred_at)
    SELECT '018f0000-0000-7000-8000-000000000002', id, CASE delta WHEN 5 THEN 2 END, 'deposit',
        delta, CASE delta WHEN 5 THEN 5 END, 'Found', now()
    FROM (
        SELECT {account} AS id, 5 AS delta
        UNION ALL SELECT id, -5 FROM accounts WHERE kind = 'cash' AND currency = 'USD'
    ) AS sides;
"""
NO_ACCOUNT: Final = f"""{ANY_ENTRY}
DELETE FROM ledger_entries WHERE account_id = {{account}};
DELETE FROM accounts WHERE user_id = '{{person}}';
"""  # noqa: S608 - the text is ours


@dataclass(frozen=True)
class Break:
    """Statements that break an invariant in a service's database."""

    check: str
    problem: str
    service: str
    statements: str

    def __str__(self) -> str:
        return f"{self.check}: {self.problem}"


BREAKS: Final = [
    Break(
        "accounts",
        "has no account",
        "accounts",
        NO_ACCOUNT,
    ),
    Break(
        "accounts",
        "has 2 accounts",
        "accounts",
        """
        ALTER TABLE accounts DROP CONSTRAINT accounts_user_id_key;
        CREATE TEMPORARY TABLE again AS SELECT * FROM accounts WHERE user_id = '{person}';
        UPDATE again SET id = gen_random_uuid();
        INSERT INTO accounts SELECT * FROM again;
        """,
    ),
    Break(
        "accounts",
        "did not sign up",
        "accounts",
        "UPDATE accounts SET user_id = gen_random_uuid() WHERE user_id = '{person}'",
    ),
    Break(
        "accounts",
        "did not sign up",
        "users",
        "UPDATE users SET roles = 'operator' WHERE id = '{person}'",
    ),
    Break(
        "onboarding-tasks",
        "has “Create your GitHub account” 0 times",
        "users",
        "DELETE FROM tasks WHERE assignee_id = '{person}' AND name LIKE 'Create%'",
    ),
    Break(
        "onboarding-tasks",
        "has “Create your GitHub account” 2 times",
        "users",
        """
        INSERT INTO tasks SELECT gen_random_uuid(), name, assignee_id, created_at, version,
            sequence FROM tasks WHERE assignee_id = '{person}' AND name LIKE 'Create%';
        """,
    ),
    Break(
        "onboarding-tasks",
        "did not sign up",
        "users",
        "UPDATE tasks SET assignee_id = gen_random_uuid() WHERE assignee_id = '{person}'",
    ),
    Break(
        "producers",
        "the last number given is 2, the last published 1",
        "users",
        "UPDATE users SET sequence = 2 WHERE id = '{person}'",
    ),
    Break(
        "producers",
        "the last number given is 0, the last published 1",
        "accounts",
        "UPDATE accounts SET sequence = 0 WHERE id = {account}",
    ),
    Break(
        "producers",
        "users.task: its producer does not know it",
        "users",
        "DELETE FROM tasks WHERE assignee_id = '{person}'",
    ),
    Break(
        "audit",
        "has no audit record",
        "audit",
        """
        ALTER TABLE records DISABLE TRIGGER ALL;
        DELETE FROM records WHERE {sign_up};
        """,
    ),
    Break(
        "audit",
        "has 2 audit records",
        "audit",
        """
        ALTER TABLE records DROP CONSTRAINT records_event_id_source_sha256_key;
        ALTER TABLE records ALTER COLUMN position SET GENERATED BY DEFAULT;
        CREATE TEMPORARY TABLE again AS SELECT * FROM records WHERE {sign_up};
        UPDATE again SET position = -1;
        INSERT INTO records SELECT * FROM again;
        """,
    ),
    Break(
        "audit",
        "where its audit record is",
        "audit",
        """
        ALTER TABLE records DISABLE TRIGGER ALL;
        UPDATE records SET "offset" = "offset" + 1000 WHERE {sign_up};
        """,
    ),
    Break(
        "audit",
        "has no audit record",
        "audit",
        """
        ALTER TABLE records DISABLE TRIGGER ALL;
        UPDATE records SET payload = 'x', sha256 = sha256('x') WHERE {sign_up};
        """,
    ),
    Break(
        "audit",
        "the bytes in its audit record have another SHA-256",
        "audit",
        """
        ALTER TABLE records DISABLE TRIGGER ALL;
        UPDATE records SET payload = payload || ' ' WHERE {sign_up};
        """,
    ),
    Break(
        "numbers",
        "its audit record has no number",
        "audit",
        """
        ALTER TABLE record_numbers DISABLE TRIGGER ALL;
        DELETE FROM record_numbers WHERE number = (SELECT max(number) FROM record_numbers);
        """,
    ),
    Break(
        "numbers",
        "is of no audit record",
        "audit",
        """
        ALTER TABLE records DISABLE TRIGGER ALL;
        DELETE FROM records WHERE {sign_up};
        """,
    ),
    Break(
        "numbers",
        "is of 2 audit records",
        "audit",
        """
        ALTER TABLE record_numbers DISABLE TRIGGER ALL, DROP CONSTRAINT record_numbers_pkey;
        UPDATE record_numbers SET number = 1 WHERE number = 2;
        """,
    ),
    Break(
        "effects",
        "opened no account",
        "accounts",
        "UPDATE accounts SET user_id = gen_random_uuid() WHERE user_id = '{person}'",
    ),
    Break(
        "effects",
        "has 0 first entries",
        "accounts",
        f"{ANY_ENTRY} DELETE FROM ledger_entries WHERE account_id = {{account}}",  # noqa: S608
    ),
    Break(
        "effects",
        "created no “Review the project documentation”",
        "users",
        "DELETE FROM tasks WHERE assignee_id = '{person}' AND name LIKE 'Review%'",
    ),
    Break(
        "effects",
        "has 0 deliveries by slack-growth-user-signed-up",
        "notification",
        "DELETE FROM deliveries WHERE text = 'person.0 signed up'",
    ),
    Break(
        "effects",
        "has 2 deliveries by slack-growth-user-signed-up",
        "notification",
        """
        DROP INDEX deliveries_event_id_rule_key;
        CREATE TEMPORARY TABLE again AS SELECT * FROM deliveries;
        UPDATE again SET id = gen_random_uuid();
        INSERT INTO deliveries SELECT * FROM again;
        """,
    ),
    Break(
        "effects",
        "is of an event that is on no topic",
        "notification",
        "UPDATE deliveries SET event_id = gen_random_uuid()",
    ),
    Break(
        "streams",
        "this stream has 1 events from 1 to 1, and 3 was given last",
        "notification",
        "UPDATE streams SET last_number = 3",
    ),
    Break(
        "streams",
        "this stream has 1 events again",
        "notification",
        """
        INSERT INTO stream_events
        SELECT user_id, epoch, last_number + 1, event_id, data, stored_at
        FROM stream_events JOIN streams USING (user_id, epoch) WHERE number = last_number;
        UPDATE streams SET last_number = last_number + 1;
        """,
    ),
    Break(
        "slack",
        "never posted",
        "notification",
        "UPDATE deliveries SET id = gen_random_uuid()",
    ),
    Break(
        "slack",
        "a message of no delivery",
        "notification",
        "DELETE FROM deliveries",
    ),
    Break(
        "books",
        "all entries together make 5",
        "accounts",
        AN_ENTRY_OF_5,
    ),
    Break(
        "books",
        "its entries in USD make -5",
        "accounts",
        AN_ENTRY_OF_5 + AND_ONE_OF_MINUS_5,
    ),
    Break(
        "books",
        "its balance is 7 after 1 entries, but 1 entries make 0",
        "accounts",
        "UPDATE accounts SET balance = 7 WHERE id = {account}",
    ),
    Break(
        "books",
        "its balance is 0 after 2 entries, but 1 entries make 0",
        "accounts",
        "UPDATE accounts SET last_position = 2 WHERE id = {account}",
    ),
    Break(
        "books",
        "balance_after of entry 1 is 3, but the entries up to it make 0",
        "accounts",
        f"""{ANY_ENTRY}
        UPDATE ledger_entries SET balance_after = 3 WHERE account_id = {{account}};
        """,  # noqa: S608
    ),
    Break(
        "books",
        "2 are held, but its open holds make 0",
        "accounts",
        "UPDATE accounts SET balance = 7, held = 2, next_expiry = now() WHERE id = {account}",
    ),
    Break(
        "published-money",
        "its balance is 5 at position 2, but its events make 0 at position 1",
        "accounts",
        A_DEPOSIT_WITHOUT_ITS_EVENT,
    ),
    Break(
        "published-money",
        "it is frozen, but its events make it open",
        "accounts",
        "UPDATE accounts SET state = 'frozen' WHERE id = {account}",
    ),
    Break(
        "nothing-waits",
        "is in the outbox of users",
        "users",
        AN_OUTBOX_ROW,
    ),
    Break(
        "nothing-waits",
        "is set aside",
        "users",
        A_ROW_SET_ASIDE,
    ),
    Break(
        "nothing-waits",
        "accounts.open-account has parked it; see python -m accounts_service parked list",
        "accounts",
        A_PARKED_SIGN_UP,
    ),
    Break(
        "nothing-waits",
        "accounts.open-account misses number 3",
        "accounts",
        """
        INSERT INTO inbox_missing (subscriber, topic, subject, sequence, last_sequence, noticed_at)
        VALUES ('accounts.open-account', 'users.user', '{person}',
            3, 3, now());
        """,
    ),
    Break(
        "nothing-waits",
        "audit tried it 4 times and did not finish it",
        "audit",
        """
        INSERT INTO tries (subscriber, topic, topic_id, partition, "offset", count, first_at,
            last_at) VALUES ('', 'users.user', gen_random_uuid(), 0, 7000, 4, now(), now());
        """,
    ),
    Break(
        "nothing-waits",
        "this timer (x) of accounts is parked; see python -m accounts_service timers list",
        "accounts",
        A_TIMER + AND_IT_IS_PARKED,
    ),
    Break(
        "nothing-waits",
        "this timer (x) of accounts is found by no worker",
        "accounts",
        A_TIMER,
    ),
    Break(
        "nothing-waits",
        "this delivery by slack-growth-user-signed-up is failed",
        "notification",
        "UPDATE deliveries SET state = 'failed'",
    ),
    Break(
        "nothing-waits",
        "this delivery by slack-growth-user-signed-up is pending",
        "notification",
        "UPDATE deliveries SET state = 'pending', next_attempt_at = now()",
    ),
    Break(
        "progress",
        "accounts.open-account is at 0, the end is",
        "accounts",
        "UPDATE progress SET next_offset = 0",
    ),
    Break(
        "progress",
        "accounts.open-account is at 1000, the end is",
        "accounts",
        "UPDATE progress SET next_offset = 1000",
    ),
    Break(
        "progress",
        "accounts.open-account is held: users.user was cut",
        "accounts",
        "UPDATE progress SET held_because = 'users.user was cut'",
    ),
    Break(
        "progress",
        "accounts.open-account has its progress in another topic of this name",
        "accounts",
        "UPDATE progress SET topic_id = gen_random_uuid()",
    ),
    Break(
        "progress",
        "audit has never read it",
        "audit",
        "DELETE FROM progress",
    ),
]
