-- Records number $1 to $2 of the audit service, of $3 subjects: as they are after years.
INSERT INTO records (topic, partition, "offset", key, headers, payload, sha256, recorded_at,
    event_id, source, type, subject, occurred_at, sequence, correlation_id, causation_id,
    traceparent, verdict, altered)
SELECT 'users.user', n % 8, n / 8, convert_to(subject, 'UTF8'),
    json_build_array(json_build_array('content-type', repeat('x', 36)),
        json_build_array('id', repeat('x', 48)), json_build_array('subject', repeat('x', 48)),
        json_build_array('traceparent', repeat('x', 76))),
    convert_to(repeat('x', 600), 'UTF8'), sha256(convert_to(n::text, 'UTF8')), at,
    uuidv7(at - now()), '/users', 'old.' || n % 20, subject, at, 1 + n / $3::bigint,
    md5('correlation ' || n), md5('causation ' || n), repeat('x', 55), 'next', false
FROM generate_series($1::bigint, $2::bigint) AS n,
    CAST(CAST(md5('subject ' || n % $3::bigint) AS uuid) AS text) AS subject,
    CAST(timestamptz '2025-01-01' + n * interval '1 second' AS timestamptz) AS at
