"""The invariants: what has to be true once every command and every event is handled.

Each is a few queries on the evidence. A row of their results is a violation: the subject, the
problem, and whether the problem is explained by something that another invariant reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariant:
    """One promise, as queries on the evidence.

    :param looked_at: what is counted, and how
    :param broken_by: each query returns rows of subject, problem, and whether it is explained
    """

    name: str
    sentence: str
    looked_at: Mapping[str, str]
    broken_by: tuple[str, ...]
    needs_messages: bool = False


_COMMANDS: Final = Invariant(
    name="commands",
    sentence="every sign-up that was answered has its user",
    looked_at={"answers": "SELECT count(*) FROM expected_users"},
    broken_by=(
        """
        SELECT id, 'the sign-up was answered, but there is no such user', 0
        FROM expected_users
        WHERE id NOT IN (SELECT id FROM users WHERE signed_up)
        """,
    ),
)

_ACCOUNTS: Final = Invariant(
    name="accounts",
    sentence="each user has one account, and each account one user",
    looked_at={
        "users": "SELECT count(*) FROM users WHERE signed_up",
        "accounts": "SELECT count(*) FROM accounts WHERE user_id IS NOT NULL",
    },
    broken_by=(
        """
        SELECT id, 'has no account', EXISTS (
            SELECT 1 FROM sign_ups_held AS held WHERE held.user_id = users.id
            AND coalesce(held.subscriber, :opens_accounts) = :opens_accounts
        )
        FROM users
        WHERE signed_up AND NOT EXISTS (SELECT 1 FROM accounts WHERE user_id = users.id)
        """,
        """
        SELECT user_id, 'has ' || count(*) || ' accounts', 0
        FROM accounts
        WHERE user_id IS NOT NULL
        GROUP BY user_id HAVING count(*) > 1
        """,
        """
        SELECT user_id, 'has account ' || id || ', but did not sign up', 0
        FROM accounts
        WHERE user_id IS NOT NULL AND user_id NOT IN (SELECT id FROM users WHERE signed_up)
        """,
    ),
)

_ONBOARDING_TASKS: Final = Invariant(
    name="onboarding-tasks",
    sentence="each user has each onboarding task once",
    looked_at={
        "users": "SELECT count(*) FROM users WHERE signed_up",
        "tasks": "SELECT count(*) FROM tasks",
    },
    broken_by=(
        """
        SELECT
            users.id,
            'has “' || wanted.name || '” ' || count(tasks.id) || ' times',
            count(tasks.id) = 0 AND EXISTS (
                SELECT 1 FROM sign_ups_held AS held WHERE held.user_id = users.id
                AND coalesce(held.subscriber, :creates_tasks) = :creates_tasks
            )
        FROM users
            CROSS JOIN onboarding_tasks AS wanted
            LEFT JOIN tasks ON tasks.assignee_id = users.id AND tasks.name = wanted.name
        WHERE signed_up
        GROUP BY users.id, wanted.name HAVING count(tasks.id) <> 1
        """,
        """
        SELECT assignee_id, 'has task ' || id || ', but did not sign up', 0
        FROM tasks
        WHERE name IN (SELECT name FROM onboarding_tasks)
            AND assignee_id NOT IN (SELECT id FROM users WHERE signed_up)
        """,
    ),
)

_TOPICS: Final = Invariant(
    name="topics",
    sentence="every record on every topic is an event, under its subject's key",
    looked_at={
        "topics": "SELECT count(DISTINCT topic) FROM partitions",
        "records": "SELECT count(*) FROM published",
    },
    broken_by=(
        """
        SELECT topic, 'the topic is missing', 0
        FROM catalogue
        WHERE topic NOT IN (SELECT topic FROM partitions)
        """,
        # Explained where an operator discarded it, or accepted these very bytes.
        """
        SELECT
            place, unreadable_because,
            row_number() OVER (ORDER BY place) <= :unreadable
                OR place IN (SELECT place FROM discarded)
                OR EXISTS (
                    SELECT 1 FROM tolerated
                    WHERE tolerated.place = published.place AND tolerated.sha256 = published.sha256
                )
        FROM published
        WHERE unreadable_because IS NOT NULL
        """,
        """
        SELECT subject, 'its record ' || place || ' has another key', 0
        FROM published
        WHERE unreadable_because IS NULL AND NOT key_is_subject
        """,
        # Explained once an operator of every consumer has skipped it.
        """
        SELECT
            topic || ' ' || partition || '@' || begin_offset,
            'a batch up to offset ' || end_offset || ' can''t be read: ' || reason,
            NOT EXISTS (
                SELECT 1 FROM consumers
                WHERE consumers.topic = batch.topic AND NOT EXISTS (
                    SELECT 1 FROM skipped
                    WHERE skipped.service = consumers.service AND skipped.topic = batch.topic
                        AND skipped.partition = batch.partition
                        AND skipped.begin_offset <= batch.begin_offset
                        AND skipped.end_offset >= batch.end_offset
                )
            )
        FROM unreadable_batches AS batch
        """,
    ),
)

_SEQUENCES: Final = Invariant(
    name="sequences",
    sentence="each subject's events are numbered 1, 2, 3 and so on, in order, each number once",
    looked_at={
        "subjects": "SELECT count(*) FROM (SELECT DISTINCT topic, subject FROM events)",
        "events": "SELECT count(*) FROM events",
        "repeats": "SELECT coalesce(sum(times - 1), 0) FROM events",
    },
    broken_by=(
        """
        SELECT
            subject,
            topic || ': of numbers up to ' || max(sequence) || ', '
            || (max(sequence) - count(DISTINCT sequence)) || ' are missing',
            0
        FROM events
        GROUP BY topic, subject HAVING max(sequence) <> count(DISTINCT sequence)
        """,
        """
        SELECT
            subject,
            topic || ': number ' || sequence || ' is of ' || count(DISTINCT event_id) || ' events',
            0
        FROM events
        GROUP BY topic, subject, sequence HAVING count(DISTINCT event_id) > 1
        """,
        """
        SELECT min(subject), 'event ' || event_id || ' has ' || count(*) || ' numbers or types', 0
        FROM events
        GROUP BY event_id HAVING count(*) > 1
        """,
        """
        SELECT min(subject), 'event ' || event_id || ' came with different bytes', 0
        FROM published
        WHERE unreadable_because IS NULL
        GROUP BY event_id HAVING count(DISTINCT sha256) > 1
        """,
        """
        SELECT
            subject,
            topic || ': number ' || sequence || ' was published before its predecessor',
            0
        FROM (
            SELECT topic, subject, sequence, min(offset) AS at, lag(min(offset)) OVER (
                PARTITION BY topic, partition, subject ORDER BY sequence
            ) AS at_before
            FROM published
            WHERE unreadable_because IS NULL
            GROUP BY topic, partition, subject, sequence
        )
        WHERE at_before > at
        """,
    ),
)

_PRODUCERS: Final = Invariant(
    name="producers",
    sentence="the last number that each producer gave is the last on its topic",
    looked_at={"aggregates": "SELECT count(*) FROM aggregates WHERE last_sequence > 0"},
    broken_by=(
        """
        SELECT
            given.subject,
            given.topic || ': the last number given is ' || given.last_sequence
            || ', the last published ' || given.published,
            given.last_sequence - given.published = (
                SELECT count(DISTINCT outbox.sequence)
                FROM outbox
                WHERE outbox.topic = given.topic AND outbox.subject = given.subject
                    AND outbox.sequence > given.published
                    AND outbox.sequence <= given.last_sequence
            )
        FROM (
            SELECT topic, subject, last_sequence, coalesce((
                SELECT max(sequence) FROM events
                WHERE events.topic = aggregates.topic AND events.subject = aggregates.subject
            ), 0) AS published
            FROM aggregates
        ) AS given
        WHERE given.last_sequence <> given.published
        """,
        """
        SELECT DISTINCT subject, topic || ': its producer does not know it', 0
        FROM events
        WHERE NOT EXISTS (
            SELECT 1 FROM aggregates
            WHERE aggregates.topic = events.topic AND aggregates.subject = events.subject
        )
        """,
    ),
)

_AUDIT: Final = Invariant(
    name="audit",
    sentence="each event has one audit record, of its place and its bytes",
    looked_at={
        "events": "SELECT count(*) FROM (SELECT DISTINCT event_id, sha256 FROM published)",
        "audit records": "SELECT count(*) FROM records",
    },
    broken_by=(
        """
        SELECT
            min(subject),
            'event ' || event_id || ' at ' || min(place) || ' has no audit record',
            max(EXISTS (
                SELECT 1 FROM not_handled AS held
                WHERE held.subscriber = :keeps_records AND held.place = published.place
            ))
        FROM published
        WHERE unreadable_because IS NULL AND NOT EXISTS (
            SELECT 1 FROM records
            WHERE records.event_id = published.event_id AND records.sha256 = published.sha256
        )
        GROUP BY event_id, sha256
        """,
        # A record that is not an event has no id: it is identified by its place.
        """
        SELECT place, 'has no audit record', EXISTS (
            SELECT 1 FROM not_handled AS held
            WHERE held.subscriber = :keeps_records AND held.place = published.place
        )
        FROM published
        WHERE unreadable_because IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM records
            WHERE records.place = published.place AND records.sha256 = published.sha256
                AND records.event_id IS NULL
        )
        """,
        """
        SELECT coalesce(event_id, place), 'has ' || count(*) || ' audit records', 0
        FROM records
        GROUP BY coalesce(event_id, place), sha256 HAVING count(*) > 1
        """,
        """
        SELECT coalesce(event_id, place), 'is not at ' || place || ', where its audit record is', 0
        FROM records
        WHERE NOT EXISTS (
            SELECT 1 FROM published
            WHERE published.place = records.place AND published.sha256 = records.sha256
                AND published.event_id IS records.event_id
        )
        """,
        """
        SELECT coalesce(event_id, place), 'the bytes in its audit record have another SHA-256', 0
        FROM records
        WHERE sha256 <> sha256_of_payload
        """,
    ),
)

_NUMBERS: Final = Invariant(
    name="numbers",
    sentence="the audit records are numbered 1, 2, 3 and so on, each once",
    looked_at={"numbers": "SELECT count(number) FROM records"},
    broken_by=(
        """
        SELECT coalesce(event_id, place), 'its audit record has no number', 0
        FROM records
        WHERE number IS NULL
        """,
        """
        SELECT 'number ' || number, 'is of ' || count(*) || ' audit records', 0
        FROM records
        WHERE number IS NOT NULL
        GROUP BY number HAVING count(*) > 1
        """,
        """
        SELECT
            'number ' || (before + 1),
            CASE WHEN number > before + 2 THEN 'and those up to ' || (number - 1) || ' are'
                ELSE 'is' END || ' of no audit record',
            0
        FROM (
            SELECT number, lag(number, 1, 0) OVER (ORDER BY number) AS before
            FROM (SELECT DISTINCT number FROM records WHERE number IS NOT NULL)
        )
        WHERE number > before + 1
        """,
    ),
)

_EFFECTS: Final = Invariant(
    name="effects",
    sentence="each event had each of its effects once",
    looked_at={
        "sign-ups": "SELECT count(*) FROM sign_ups",
        "deliveries": "SELECT count(*) FROM deliveries",
        "deliveries purged": "SELECT count(*) FROM deliveries WHERE state = 'purged'",
    },
    broken_by=(
        """
        SELECT user_id, 'event ' || fact || ' opened no account', EXISTS (
            SELECT 1 FROM not_handled AS held
            WHERE held.fact = sign_ups.fact AND held.subscriber = :opens_accounts
        )
        FROM sign_ups
        WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE accounts.user_id = sign_ups.user_id)
        """,
        """
        SELECT user_id, 'account ' || id || ' has ' || first_entries || ' first entries', 0
        FROM accounts
        WHERE user_id IS NOT NULL AND first_entries <> 1
        """,
        """
        SELECT user_id, 'event ' || fact || ' created no “' || wanted.name || '”', EXISTS (
            SELECT 1 FROM not_handled AS held
            WHERE held.fact = sign_ups.fact AND held.subscriber = :creates_tasks
        )
        FROM sign_ups CROSS JOIN onboarding_tasks AS wanted
        WHERE NOT EXISTS (
            SELECT 1 FROM tasks
            WHERE tasks.assignee_id = sign_ups.user_id AND tasks.name = wanted.name
        )
        """,
        """
        SELECT
            events.subject,
            'event ' || events.fact || ' has ' || count(deliveries.id) || ' deliveries by '
            || delivery_rules.rule,
            count(deliveries.id) = 0 AND EXISTS (
                SELECT 1 FROM not_handled AS held
                WHERE held.fact = events.fact AND held.subscriber = :plans_deliveries
            )
        FROM events
            JOIN delivery_rules USING (type)
            LEFT JOIN deliveries ON deliveries.event_id = events.event_id
                AND deliveries.rule = delivery_rules.rule
        GROUP BY events.topic, events.subject, events.fact, delivery_rules.rule
        HAVING count(deliveries.id) <> 1
        """,
        """
        SELECT event_id, 'delivery ' || id || ' is of an event that is on no topic', 0
        FROM deliveries
        WHERE event_id NOT IN (SELECT event_id FROM events)
        """,
    ),
)

_STREAMS: Final = Invariant(
    name="streams",
    sentence="each user's stream has numbers without a gap, and each event once",
    looked_at={
        "streams": "SELECT count(*) FROM streams",
        "events of streams": "SELECT coalesce(sum(numbers), 0) FROM streams",
    },
    broken_by=(
        """
        SELECT user_id, 'this stream has ' || numbers || ' events from ' || first || ' to ' || last
            || ', and ' || last_number || ' was given last', 0
        FROM streams
        WHERE numbers > 0 AND (last <> last_number OR numbers <> last - first + 1)
        """,
        """
        SELECT user_id, 'this stream has ' || (numbers - events) || ' events again', 0
        FROM streams
        WHERE numbers <> events
        """,
    ),
)

_SLACK: Final = Invariant(
    name="slack",
    sentence="each delivery that was sent is one message, and each message a delivery",
    looked_at={
        "messages": "SELECT count(*) FROM messages",
        "deliveries sent": """
            SELECT count(*) FROM deliveries WHERE medium = 'slack' AND state = 'sent'
        """,
        "marked as maybe repeated": "SELECT count(*) FROM deliveries WHERE maybe_repeated",
        "repeated": "SELECT count(delivery_id) - count(DISTINCT delivery_id) FROM messages",
    },
    broken_by=(
        """
        SELECT deliveries.id, 'was posted ' || count(ts) || ' times', 0
        FROM deliveries JOIN messages ON messages.delivery_id = deliveries.id
        GROUP BY deliveries.id HAVING count(ts) > 1 + maybe_repeated
        """,
        # The stand-in keeps the newest messages only.
        """
        SELECT id, 'is sent, and was never posted', 0
        FROM deliveries
        WHERE medium = 'slack' AND state = 'sent'
            AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.delivery_id = deliveries.id)
            AND ((SELECT count(*) FROM messages) < :most_messages
                OR message_id >= (SELECT min(ts) FROM messages))
        """,
        """
        SELECT ts, 'a message of no delivery', 0
        FROM messages
        WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.id = messages.delivery_id)
        """,
    ),
    needs_messages=True,
)

_BOOKS: Final = Invariant(
    name="books",
    sentence="all entries add up to zero, and each account's to its balance",
    looked_at={
        "accounts": "SELECT count(*) FROM accounts WHERE user_id IS NOT NULL",
        "entries": "SELECT coalesce(sum(entries), 0) FROM accounts",
    },
    broken_by=("SELECT subject, problem, 0 FROM imbalances",),
)

# Explained where an event of the account waits to be published, or was withheld.
_PUBLISHED_MONEY: Final = Invariant(
    name="published-money",
    sentence="each account is what its events make of it, and each transaction adds up to zero",
    looked_at={
        "transactions": "SELECT count(DISTINCT transaction_id) FROM lines",
        "lines": "SELECT count(*) FROM lines",
        "holds": "SELECT count(*) FROM holds WHERE step = 'placed'",
    },
    broken_by=(
        """
        SELECT
            accounts.id,
            'its balance is ' || balance || ' at position ' || last_position
            || ', but its events make ' || coalesce(sum(delta), 0) || ' at position '
            || coalesce(max(position), 0),
            accounts.id IN (SELECT account_id FROM untold)
        FROM accounts LEFT JOIN lines ON lines.account_id = accounts.id
        WHERE user_id IS NOT NULL
        GROUP BY accounts.id
        HAVING balance <> coalesce(sum(delta), 0) OR last_position <> coalesce(max(position), 0)
        """,
        """
        SELECT
            account_id,
            'position ' || position || ' makes ' || balance_after || ' of ' || coalesce(
                balance_before || ' and ' || delta || ' at position ' || position_before, 'nothing'
            ),
            account_id IN (SELECT account_id FROM untold)
        FROM (
            SELECT
                account_id, position, delta, balance_after,
                lag(balance_after) OVER line AS balance_before,
                lag(position) OVER line AS position_before
            FROM lines
            WINDOW line AS (PARTITION BY account_id ORDER BY position)
        )
        WHERE position <> coalesce(position_before, 0) + 1
            OR balance_after <> coalesce(balance_before, 0) + delta
        """,
        # Its other line may be one that is not told.
        """
        SELECT
            transaction_id,
            'its ' || count(*) || ' lines in ' || currency || ' make ' || sum(delta),
            EXISTS (
                SELECT 1 FROM untold JOIN accounts ON accounts.id = untold.account_id
                WHERE last_position > (
                    SELECT count(*) FROM lines AS told WHERE told.account_id = accounts.id
                )
            )
        FROM lines
        WHERE kind NOT IN ('opening', 'deposit', 'withdrawal')
        GROUP BY transaction_id, currency HAVING count(*) <> 2 OR sum(delta) <> 0
        """,
        # The other line of these is the house's, which is not published.
        """
        SELECT account_id, kind || ' ' || transaction_id || ' is of ' || delta, 0
        FROM lines
        WHERE (kind = 'deposit' AND delta <= 0) OR (kind = 'withdrawal' AND delta >= 0)
        """,
        """
        SELECT
            account_id,
            'reversal ' || transaction_id || ' brings back what no transfer moved',
            account_id IN (SELECT account_id FROM untold)
        FROM lines
        WHERE (kind = 'reversal' OR reverses IS NOT NULL) AND NOT EXISTS (
            SELECT 1 FROM lines AS transfer
            WHERE transfer.transaction_id = lines.reverses AND transfer.kind = 'transfer'
                AND transfer.account_id = lines.account_id AND transfer.delta = -lines.delta
        )
        """,
        """
        SELECT reverses, 'was reversed ' || count(DISTINCT transaction_id) || ' times', 0
        FROM lines
        WHERE reverses IS NOT NULL
        GROUP BY reverses HAVING count(DISTINCT transaction_id) > 1
        """,
        """
        SELECT
            accounts.id,
            held || ' are held, but its events make ' || coalesce(sum(amount), 0),
            accounts.id IN (SELECT account_id FROM untold)
        FROM accounts LEFT JOIN holds ON holds.account_id = accounts.id AND step = 'placed'
            AND NOT EXISTS (
                SELECT 1 FROM holds AS ended
                WHERE ended.hold_id = holds.hold_id AND ended.step <> 'placed'
            )
        GROUP BY accounts.id HAVING held <> coalesce(sum(amount), 0)
        """,
        """
        SELECT
            id,
            'it is ' || state || ', but its events make it ' || coalesce(made, 'open'),
            id IN (SELECT account_id FROM untold)
        FROM accounts LEFT JOIN (
            -- Of the newest of these events.
            SELECT subject, max(sequence), CASE
                WHEN type LIKE '%.account-frozen.v%' THEN 'frozen'
                WHEN type LIKE '%.account-closed.v%' THEN 'closed'
                ELSE 'open'
            END AS made
            FROM events
            WHERE topic = 'accounts.account' AND (
                type LIKE '%.account-frozen.v%' OR type LIKE '%.account-unfrozen.v%'
                OR type LIKE '%.account-closed.v%'
            )
            GROUP BY subject
        ) ON subject = id
        WHERE state <> coalesce(made, 'open')
        """,
        """
        SELECT
            hold_id,
            'was placed ' || sum(step = 'placed') || ' times, and ended ' || sum(step <> 'placed'),
            account_id IN (SELECT account_id FROM untold)
        FROM holds
        GROUP BY hold_id HAVING sum(step = 'placed') <> 1 OR sum(step <> 'placed') > 1
        """,
        """
        SELECT
            hold_id,
            'its capture of ' || amount || ' is no transaction',
            account_id IN (SELECT account_id FROM untold)
        FROM holds
        WHERE step = 'captured' AND NOT EXISTS (
            SELECT 1 FROM lines
            WHERE lines.transaction_id = holds.transaction_id AND lines.kind = 'capture'
                AND lines.account_id = holds.account_id AND lines.delta = -holds.amount
        )
        """,
    ),
)

_NOTHING_WAITS: Final = Invariant(
    name="nothing-waits",
    sentence="nothing waits to be published, and nothing waits for an operator",
    looked_at={
        "in outboxes": "SELECT count(*) FROM outbox WHERE NOT set_aside",
        "set aside": "SELECT count(*) FROM outbox WHERE set_aside",
        "parked": "SELECT count(*) FROM parked",
    },
    broken_by=(
        """
        SELECT
            subject,
            'number ' || sequence || ' of ' || topic || ' is in the outbox of ' || service,
            :parked AND EXISTS (
                SELECT 1 FROM outbox AS aside
                WHERE aside.set_aside AND aside.topic = outbox.topic
                    AND aside.subject = outbox.subject
            )
        FROM outbox
        WHERE NOT set_aside
        """,
        """
        SELECT
            subject,
            'number ' || sequence || ' of ' || topic || ' is set aside: Kafka refuses it;'
            || ' see outbox_set_aside of ' || service,
            :parked
        FROM outbox
        WHERE set_aside
        """,
        """
        SELECT
            coalesce(subject, place),
            subscriber || ' has parked it; see python -m ' || service || '_service parked list',
            :parked
        FROM parked
        """,
        """
        SELECT
            subject,
            subscriber || ' misses number ' || sequence || CASE
                WHEN last_sequence > sequence THEN ' to ' || last_sequence ELSE '' END,
            0
        FROM missing
        """,
        """
        SELECT topic || ' ' || partition || '@' || offset,
            service || ' tried it ' || count || ' times and did not finish it', 0
        FROM tries
        -- A worker that has lost its partition may count a try of an event that another handled.
        WHERE offset >= coalesce((
            SELECT min(next_offset)
            FROM progress
            WHERE (progress.service, progress.topic, progress.partition)
                = (tries.service, tries.topic, tries.partition)
        ), 0)
        """,
        """
        SELECT id, problem, :parked AND parked
        FROM timers
        """,
        """
        SELECT id, 'this delivery by ' || rule || ' is ' || state, :parked AND state = 'failed'
        FROM deliveries
        WHERE state NOT IN ('sent', 'purged')
        """,
    ),
)

_PROGRESS: Final = Invariant(
    name="progress",
    sentence="every consumer has read every partition to its end, and is held in none",
    looked_at={
        "partitions": "SELECT count(*) FROM partitions",
        "places of subscribers": "SELECT count(*) FROM progress",
    },
    broken_by=(
        """
        SELECT
            topic || ' ' || partition,
            subscriber || ' is at ' || progress.next_offset || ', the end is '
            || partitions.next_offset,
            0
        FROM progress JOIN partitions USING (topic, partition)
        WHERE progress.next_offset <> partitions.next_offset
        """,
        """
        SELECT topic || ' ' || partition, subscriber || ' is held: ' || held_because, 0
        FROM progress
        WHERE held_because IS NOT NULL
        """,
        """
        SELECT
            topic || ' ' || partition,
            subscriber || ' has its progress in another topic of this name',
            0
        FROM progress JOIN partitions USING (topic, partition)
        WHERE held_because IS NULL AND progress.topic_id <> partitions.topic_id
            AND :unknown_topic_id NOT IN (progress.topic_id, partitions.topic_id)
        """,
        """
        SELECT topic || ' ' || partition, service || ' has never read it', 0
        FROM consumers JOIN partitions USING (topic)
        WHERE next_offset > first_offset AND NOT EXISTS (
            SELECT 1 FROM progress
            WHERE progress.service = consumers.service AND progress.topic = partitions.topic
                AND progress.partition = partitions.partition
        )
        """,
    ),
)

INVARIANTS: Final = (
    _COMMANDS,
    _ACCOUNTS,
    _ONBOARDING_TASKS,
    _TOPICS,
    _SEQUENCES,
    _PRODUCERS,
    _AUDIT,
    _NUMBERS,
    _EFFECTS,
    _STREAMS,
    _SLACK,
    _BOOKS,
    _PUBLISHED_MONEY,
    _NOTHING_WAITS,
    _PROGRESS,
)
