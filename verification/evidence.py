"""Everything that was read, in one temporary SQLite database: in a file, not in memory."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from contracts.events import family_of
from contracts.topics import EVENTS, TOPICS
from verification.effects import DELIVERY_RULES, ONBOARDING_TASKS, SIGN_UP

# The cache is the most memory that it takes.
_PRAGMAS: Final = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000"

_SCHEMA: Final = """
-- The catalogue, and the effects that the services' handlers have.
CREATE TABLE catalogue (topic);
CREATE TABLE consumers (service, topic);
CREATE TABLE sign_up (type);
CREATE TABLE onboarding_tasks (name);
CREATE TABLE delivery_rules (rule, type);

-- Kafka. A record that is not an event of ours has a reason instead of subject, sequence, id and
-- type.
CREATE TABLE partitions (
    topic, partition INTEGER, first_offset INTEGER, next_offset INTEGER, topic_id
);
CREATE TABLE published (
    topic, partition INTEGER, offset INTEGER, subject, sequence INTEGER, event_id, type,
    sha256 BLOB, key_is_subject INTEGER, unreadable_because,
    place AS (topic || ' ' || partition || '@' || offset)
);
-- Events of facts that are published in several versions. The versions of a fact have one name.
CREATE TABLE versions (event_id, fact);
CREATE TABLE unreadable_batches (
    topic, partition INTEGER, begin_offset INTEGER, end_offset INTEGER, reason
);
-- Parked events that an operator decided to leave unhandled.
CREATE TABLE discarded (
    subscriber, topic, partition INTEGER, offset INTEGER, event_id,
    place AS (topic || ' ' || partition || '@' || offset)
);

-- Records that are no events, and that an operator accepted as such.
CREATE TABLE tolerated (
    topic, partition INTEGER, offset INTEGER, sha256 BLOB,
    place AS (topic || ' ' || partition || '@' || offset)
);

-- What the events of accounts say: each change of a balance, and each step of a hold. An event may
-- be there more than once.
CREATE TABLE changes (
    event_id, account_id, position INTEGER, transaction_id, kind, currency, delta INTEGER,
    balance_after INTEGER, reverses
);
CREATE TABLE hold_steps (event_id, account_id, hold_id, step, amount INTEGER, transaction_id);

-- The databases.
CREATE TABLE aggregates (topic, subject, last_sequence INTEGER);
CREATE TABLE users (id, signed_up INTEGER);
CREATE TABLE tasks (id, assignee_id, name);
CREATE TABLE accounts (
    id, user_id, entries INTEGER, first_entries INTEGER, balance INTEGER, last_position INTEGER,
    held INTEGER, state
);
CREATE TABLE imbalances (subject, problem);
CREATE TABLE records (
    topic, partition INTEGER, offset INTEGER, event_id, sha256 BLOB, sha256_of_payload BLOB,
    number INTEGER, place AS (topic || ' ' || partition || '@' || offset)
);
CREATE TABLE deliveries (id, rule, event_id, medium, state, maybe_repeated INTEGER, message_id);
CREATE TABLE streams (
    user_id, last_number INTEGER, numbers INTEGER, events INTEGER, first INTEGER, last INTEGER
);
CREATE TABLE outbox (service, topic, subject, sequence INTEGER, set_aside INTEGER);
CREATE TABLE parked (
    service, subscriber, topic, partition INTEGER, offset INTEGER, subject, event_id,
    place AS (topic || ' ' || partition || '@' || offset)
);
CREATE TABLE skipped (
    service, topic, partition INTEGER, begin_offset INTEGER, end_offset INTEGER
);
CREATE TABLE missing (service, subscriber, subject, sequence INTEGER, last_sequence INTEGER);
CREATE TABLE tries (service, topic, partition INTEGER, offset INTEGER, count INTEGER);
CREATE TABLE progress (
    service, subscriber, topic, partition INTEGER, next_offset INTEGER, topic_id, held_because
);
-- Timers that can't stay as they are.
CREATE TABLE timers (id, problem, parked INTEGER);

-- Slack's stand-in.
CREATE TABLE messages (ts, delivery_id);

-- What the caller expects.
CREATE TABLE expected_users (id);
CREATE TABLE made_up (subject);
"""

# What most queries need: each event once, however often it was published, and the events that a
# subscriber did not handle.
_DERIVED: Final = """
CREATE INDEX published_event ON published (topic, subject, sequence, event_id);
CREATE INDEX published_place ON published (place);
CREATE INDEX versions_event ON versions (event_id);
CREATE TABLE events AS
    SELECT
        topic, subject, sequence, event_id, type, count(*) AS times,
        coalesce((SELECT fact FROM versions WHERE event_id = published.event_id), event_id) AS fact
    FROM published WHERE unreadable_because IS NULL
    GROUP BY topic, subject, sequence, event_id, type;
CREATE INDEX events_subject ON events (topic, subject, sequence);
CREATE INDEX events_id ON events (event_id);
CREATE TABLE sign_ups AS
    SELECT DISTINCT subject AS user_id, fact FROM events JOIN sign_up USING (type);
CREATE INDEX sign_ups_user ON sign_ups (user_id);

-- What a subscriber parked, or an operator discarded.
CREATE TABLE not_handled AS
    SELECT
        subscriber, place,
        coalesce((SELECT fact FROM versions WHERE event_id = held.event_id), event_id) AS fact
    FROM (
        SELECT subscriber, event_id, place FROM parked
        UNION SELECT subscriber, event_id, place FROM discarded
    ) AS held;
CREATE INDEX not_handled_place ON not_handled (place);
CREATE INDEX not_handled_fact ON not_handled (fact);

-- Sign-ups (the first event of their user) without all their effects: for one subscriber, or for
-- all where the subscriber is NULL.
CREATE TABLE sign_ups_held AS
    SELECT user_id, subscriber FROM not_handled JOIN sign_ups USING (fact)
    UNION SELECT subject, NULL FROM outbox WHERE topic = 'users.user' AND sequence = 1
    UNION SELECT subject, NULL FROM events
        WHERE topic = 'users.user' AND sequence = 1 AND type LIKE '%.event-withheld.v%';
CREATE INDEX sign_ups_held_user ON sign_ups_held (user_id);

-- The statement of each account as its events tell it.
CREATE TABLE lines AS SELECT DISTINCT * FROM changes;
CREATE INDEX lines_account ON lines (account_id, position);
CREATE INDEX lines_transaction ON lines (transaction_id, account_id);
CREATE TABLE holds AS SELECT DISTINCT * FROM hold_steps;
CREATE INDEX holds_id ON holds (hold_id, step);
CREATE INDEX holds_account ON holds (account_id);
-- Accounts of which an event waits to be published, or was withheld by an operator.
CREATE TABLE untold AS
    SELECT subject AS account_id FROM outbox WHERE topic = 'accounts.account'
    UNION SELECT subject FROM events
        WHERE topic = 'accounts.account' AND type LIKE '%.event-withheld.v%';
CREATE INDEX untold_account ON untold (account_id);

CREATE INDEX aggregates_subject ON aggregates (topic, subject);
CREATE INDEX users_id ON users (id);
CREATE INDEX tasks_assignee ON tasks (assignee_id, name);
CREATE INDEX accounts_id ON accounts (id);
CREATE INDEX accounts_user ON accounts (user_id);
CREATE INDEX records_event ON records (event_id, sha256);
CREATE INDEX records_place ON records (place);
CREATE INDEX deliveries_id ON deliveries (id);
CREATE INDEX deliveries_event ON deliveries (event_id, rule);
CREATE INDEX outbox_subject ON outbox (topic, subject, sequence);
CREATE INDEX messages_delivery ON messages (delivery_id);
CREATE INDEX made_up_subject ON made_up (subject);
"""


class Evidence:
    """Tables: call ``add`` for all rows, then ``complete`` once, then ``query``. Ids are text."""

    def __init__(self) -> None:
        self.has_messages = False
        # With an empty name SQLite uses a private file and deletes it when the database is closed.
        # Queries run in another thread, but never two at once.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(_PRAGMAS)
        self._database.executescript(_SCHEMA)
        self.add("catalogue", ((each.name,) for each in TOPICS))
        self.add("consumers", ((name, each.name) for each in TOPICS for name in each.consumers))
        self.add("sign_up", ((type_,) for type_ in _versions_of(SIGN_UP)))
        self.add("onboarding_tasks", ((name,) for name in ONBOARDING_TASKS))
        self.add(
            "delivery_rules",
            ((rule, type_) for rule, of in DELIVERY_RULES.items() for type_ in _versions_of(of)),
        )

    def add(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows whose values are in the order of the table's columns."""
        columns = self._database.execute("SELECT * FROM pragma_table_info(?)", [table]).fetchall()
        values = ", ".join("?" * len(columns))
        self._database.execute("BEGIN")
        insert = f"INSERT INTO {table} VALUES ({values})"  # noqa: S608 - the names are ours
        self._database.executemany(insert, rows)
        self._database.execute("COMMIT")

    def complete(self) -> None:
        """Make the indexes and the derived tables; nothing may be added after this."""
        self._database.executescript(_DERIVED)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Return the rows of a query."""
        return iter(self._database.execute(sql, parameters or {}))

    def close(self) -> None:
        self._database.close()


def _versions_of(event_type: str) -> list[str]:
    """Return an event type in all versions of the catalogue."""
    return [each for each in EVENTS if family_of(each) == family_of(event_type)]
