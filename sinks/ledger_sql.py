"""The statements of the PostgreSQL ledger, and what comes back from them."""

from __future__ import annotations

# ORDER BY: heads are locked in one order by everyone, so that writers never wait in a circle.
# The last column is the transaction's start in µs since 1970, exactly: extract() gives numeric.
LOCK_HEADS = """
SELECT log_id, name, size, next_offset, frontier, root,
    (extract(epoch FROM now()) * 1000000)::bigint
FROM log_heads WHERE log_id = ANY (%s) ORDER BY log_id FOR UPDATE
"""

NEWEST_HEAD = """
SELECT log_id, name, size, next_offset, root, cluster_id, topic_id, epoch
FROM log_heads WHERE topic = %s AND partition = %s ORDER BY epoch DESC LIMIT 1
"""

HEAD = """
SELECT log_id, name, size, next_offset, root, cluster_id, topic_id, epoch
FROM log_heads WHERE log_id = %s
"""

INSERT_HEAD = """
INSERT INTO log_heads (name, topic, partition, epoch, cluster_id, topic_id, next_offset)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""

MOVE_HEADS = """
UPDATE log_heads SET next_offset = moved.next_offset, size = moved.size,
    frontier = moved.frontier, root = moved.root, updated_at = now()
FROM unnest(%s::integer[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bytea[])
    AS moved (log_id, next_offset, size, frontier, root)
WHERE log_heads.log_id = moved.log_id
"""

INSERT_INTAKE = """
INSERT INTO intake (log_id, first_offset, next_offset, first_leaf, accepted, duplicates,
    dead_lettered, holes, restored)
SELECT * FROM unnest(%s::integer[], %s::bigint[], %s::bigint[], %s::bigint[], %s::integer[],
    %s::integer[], %s::integer[], %s::bigint[], %s::boolean[])
"""

# A statement of its own, after the heads are locked: it sees an erasure that was committed while they
# were waited for.
ERASURE_EPOCH = "SELECT epoch FROM erasure_state"

# Stored events of these ids that name a subject who was erased since, or nobody.
EVENTS_OF_ERASED = """
SELECT uuid_send(leaves.event_id)
FROM leaves JOIN audit_logs USING (log_id, leaf_index, occurred_at)
WHERE leaves.event_id = ANY (%s) AND EXISTS (
    SELECT FROM json_object_keys(audit_logs.event -> 'sealed') AS ref
    WHERE ref = '00000000-0000-0000-0000-000000000000' OR subject_is_erased(ref::uuid)
)
"""

STORED_HASHES = "SELECT uuid_send(event_id), leaf_hash FROM leaves WHERE event_id = ANY (%s)"

ENSURE_MONTH = "SELECT ensure_month(to_timestamp(%s))"
ENSURE_MONTHS = "SELECT ensure_months(%s)"

# The send functions give the server's binary form: no text is made and parsed again for the
# fixed columns, which come as one value.
READ_LEAVES = """
SELECT leaf_index, leaf_hash, timestamptz_send(occurred_at) FROM leaves
WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index
"""

# In the order of their leaves, up to the first one before which so many bytes were given.
READ_EVENTS = """
SELECT leaf_index, fixed, actor_ref, family, canonical
FROM (
    SELECT *, sum(octet_length(canonical)) OVER (ORDER BY leaf_index ROWS UNBOUNDED PRECEDING) AS total
    FROM (
        SELECT leaf_index,
            int8send(source_offset) || timestamptz_send(occurred_at) || timestamptz_send(stored_at)
                || timestamptz_send(broker_timestamp) || int4send(schema_id) || uuid_send(event_id)
                AS fixed,
            uuid_send(actor_ref) AS actor_ref, family, json_send(event) AS canonical
        FROM audit_logs
        WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s
            AND occurred_at >= to_timestamp(%s) AND occurred_at <= to_timestamp(%s)
        OFFSET 0  -- each form is made once
    ) AS events
) AS counted
WHERE total - octet_length(canonical) < %s
ORDER BY leaf_index
"""

READ_BLOBS = """
SELECT leaf_index, uuid_send(subject_ref), nonce, ciphertext FROM audit_blobs
WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s
    AND occurred_at >= to_timestamp(%s) AND occurred_at <= to_timestamp(%s)
ORDER BY leaf_index, subject_ref
"""

# Leaves here and there: of a person, of a repair.
SOME_LEAVES = """
SELECT leaf_index, leaf_hash, timestamptz_send(occurred_at) FROM leaves
WHERE log_id = %s AND leaf_index = ANY (%s) ORDER BY leaf_index
"""

SOME_EVENTS = """
SELECT leaf_index,
    int8send(source_offset) || timestamptz_send(occurred_at) || timestamptz_send(stored_at)
        || timestamptz_send(broker_timestamp) || int4send(schema_id) || uuid_send(event_id) AS fixed,
    uuid_send(actor_ref) AS actor_ref, family, json_send(event) AS canonical
FROM audit_logs
WHERE log_id = %s AND leaf_index = ANY (%s)
    AND occurred_at >= to_timestamp(%s) AND occurred_at <= to_timestamp(%s)
"""

SOME_BLOBS = """
SELECT leaf_index, uuid_send(subject_ref), nonce, ciphertext FROM audit_blobs
WHERE log_id = %s AND leaf_index = ANY (%s)
    AND occurred_at >= to_timestamp(%s) AND occurred_at <= to_timestamp(%s)
ORDER BY leaf_index, subject_ref
"""

POSITION = "SELECT next_leaf FROM follower_position WHERE follower = %s AND log_id = %s"

ADVANCE = """
INSERT INTO follower_position (follower, log_id, next_leaf)
SELECT %s, log_id, least(next_leaf, size)
FROM unnest(%s::integer[], %s::bigint[]) AS moved (log_id, next_leaf) JOIN log_heads USING (log_id)
ORDER BY log_id
ON CONFLICT (follower, log_id) DO UPDATE
SET next_leaf = excluded.next_leaf, updated_at = now()
WHERE follower_position.next_leaf < excluded.next_leaf
"""
