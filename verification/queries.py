"""The queries on each service's database: rows for the evidence, in the order of its columns."""

from typing import Final

OF_EVERY_SERVICE: Final = (
    (
        "outbox",
        """
        SELECT $1::text, aggregatetype, aggregateid, sequence, false FROM outbox
        UNION ALL
        SELECT $1::text, aggregatetype, aggregateid, sequence, true FROM outbox_set_aside
        """,
    ),
    (
        "parked",
        """
        SELECT $1::text, subscriber, topic, "partition", "offset", subject, event_id::text
        FROM parked
        """,
    ),
    (
        "skipped",
        'SELECT $1::text, topic, "partition", begin_offset, end_offset FROM skipped_batches',
    ),
    ("missing", "SELECT $1::text, subscriber, subject, sequence, last_sequence FROM inbox_missing"),
    (
        "timers",
        """
        SELECT id::text, format(
            'this timer (%s) of %s %s', kind, $1::text, CASE
                WHEN parked THEN 'is parked; see python -m ' || $1::text || '_service timers list'
                WHEN no_first THEN 'is found by no worker, since its aggregate has no first timer'
                ELSE 'is due, and not handled'
            END
        ), parked
        FROM (
            SELECT id, kind, due_at, n.parked_at IS NOT NULL AS parked,
                n.timer_id IS NULL AS no_first
            FROM timers LEFT JOIN next_timers AS n USING (subject)
        ) AS each
        WHERE parked OR no_first OR due_at <= clock_timestamp()
        UNION ALL
        SELECT timer_id::text, 'this first timer of an aggregate of ' || $1::text || ' is gone',
            false
        FROM next_timers WHERE timer_id NOT IN (SELECT id FROM timers)
        """,
    ),
    ("tries", 'SELECT $1::text, topic, "partition", "offset", count FROM tries'),
    (
        "progress",
        """
        SELECT $1::text, subscriber, topic, "partition", next_offset, topic_id::text, held_because
        FROM progress
        """,
    ),
)
"""Which table of the evidence each query fills; ``$1`` is the service's name."""

OF_ONE_SERVICE: Final = {
    "users": (
        # Operators did not sign up.
        ("users", "SELECT id::text, 'operator' <> ALL (string_to_array(roles, ' ')) FROM users"),
        ("tasks", "SELECT id::text, assignee_id::text, name FROM tasks"),
    ),
    "accounts": (
        (
            "accounts",
            """
            SELECT a.id::text, a.user_id::text, count(e.account_id),
                count(*) FILTER (WHERE e.position = 1), a.balance, a.last_position, a.held,
                a.state
            FROM accounts AS a LEFT JOIN ledger_entries AS e ON e.account_id = a.id
            GROUP BY a.id
            """,
        ),
        (
            "imbalances",
            """
            SELECT currency, 'all entries together make ' || sum(delta)
            FROM ledger_entries JOIN accounts ON accounts.id = account_id
            GROUP BY currency HAVING sum(delta) <> 0
            """,
        ),
        (
            "imbalances",
            """
            SELECT transaction_id::text, 'its entries in ' || currency || ' make ' || sum(delta)
            FROM ledger_entries JOIN accounts ON accounts.id = account_id
            GROUP BY transaction_id, currency HAVING sum(delta) <> 0
            """,
        ),
        (
            "imbalances",
            """
            SELECT a.id::text, format(
                'its balance is %s after %s entries, but %s entries make %s',
                a.balance, a.last_position, count(e.account_id), coalesce(sum(e.delta), 0)
            )
            FROM accounts AS a LEFT JOIN ledger_entries AS e ON e.account_id = a.id
            WHERE a.balance IS NOT NULL
            GROUP BY a.id
            HAVING a.balance <> coalesce(sum(e.delta), 0) OR a.last_position <> count(e.account_id)
            """,
        ),
        (
            "imbalances",
            """
            SELECT a.id::text, format(
                '%s are held, but its open holds make %s', a.held, coalesce(sum(h.amount), 0)
            )
            FROM accounts AS a LEFT JOIN holds AS h ON h.account_id = a.id AND h.state = 'open'
            GROUP BY a.id HAVING a.held <> coalesce(sum(h.amount), 0)
            """,
        ),
        (
            "imbalances",
            """
            SELECT account_id::text, format(
                'balance_after of entry %s is %s, but the entries up to it make %s',
                position, balance_after, balance
            )
            FROM (
                SELECT account_id, position, balance_after,
                    sum(delta) OVER (PARTITION BY account_id ORDER BY position) AS balance
                FROM ledger_entries
                WHERE position IS NOT NULL
            ) AS running
            WHERE balance_after <> balance
            """,
        ),
    ),
    "audit": (
        (
            "records",
            """
            SELECT topic, "partition", "offset", event_id::text, sha256,
                sha256(coalesce(payload, '')), number
            FROM records LEFT JOIN record_numbers USING (position)
            """,
        ),
    ),
    "notification": (
        (
            "deliveries",
            """
            SELECT id::text, rule, event_id::text, medium, state, maybe_repeated, message_id
            FROM deliveries
            UNION ALL
            SELECT id::text, rule, event_id::text, NULL, 'purged', NULL, NULL
            FROM purged_deliveries
            """,
        ),
        (
            "streams",
            """
            SELECT user_id::text, last_number, count(event_id), count(DISTINCT event_id),
                min(number), max(number)
            FROM streams LEFT JOIN stream_events USING (user_id, epoch)
            GROUP BY user_id
            """,
        ),
    ),
}

# Rows behind one that was set aside wait for the operator too.
OUTBOX: Final = """
SELECT count(*), coalesce(max(position), 0) FROM outbox AS o WHERE NOT EXISTS (
    SELECT FROM outbox_set_aside AS s
    WHERE s.aggregatetype = o.aggregatetype AND s.aggregateid = o.aggregateid
)
"""
PROGRESS: Final = 'SELECT subscriber, topic, "partition", next_offset FROM progress'
DUE_TIMERS: Final = "SELECT count(*) FROM next_timers WHERE begun OR next_at <= clock_timestamp()"
UNNUMBERED: Final = """
SELECT count(*) FROM records AS r
WHERE position > (SELECT numbered_to FROM numbering)
    AND NOT EXISTS (SELECT FROM record_numbers AS n WHERE n.position = r.position)
"""
OPEN_DELIVERIES: Final = "SELECT count(*) FROM deliveries WHERE next_attempt_at IS NOT NULL"
