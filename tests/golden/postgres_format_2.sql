-- The tables and functions of format 2, as they were: "@" stands for the schema.
CREATE SCHEMA @;

-- One row.
CREATE TABLE @.meta (
    one           bool PRIMARY KEY DEFAULT true CHECK (one),
    format        int4 NOT NULL,
    store_id      text NOT NULL,
    identity      text NOT NULL,              -- of the server that gave the last block
    sequence_floor int8 NOT NULL DEFAULT 0,   -- no stream begins at or below it
    time_high_ms  int8 NOT NULL DEFAULT 0,
    clock         bytea NOT NULL DEFAULT '',  -- jumps of the clock, as the library encodes them
    clock_version int8 NOT NULL DEFAULT 0,
    evicted       int8 NOT NULL DEFAULT 0,
    last_sweep_ms int8 NOT NULL DEFAULT 0);

-- Blocks of 65,536 sequences.
CREATE SEQUENCE @.block AS int8 MAXVALUE 140737488355327 NO CYCLE;

-- The head of each stream. An update moves no index entry as long as expiry_slot stays, which is
-- why that is coarse and why the pages are left half empty.
CREATE TABLE @.head (
    sequence       int8  NOT NULL,
    fence          int8  NOT NULL,              -- claim_sequence
    timestamp_ms   int8  NOT NULL,
    expires_ms     int8  NOT NULL,              -- 0: never
    expiry_slot    int8  NOT NULL,              -- expires_ms / 600,000 + 1; 0: never
    ttl_ms         int8  NOT NULL,
    lease_until_ms int8  NOT NULL,              -- 0: no lease
    attempt        int8  NOT NULL,
    bucket         int2  NOT NULL,              -- of sha256(ns, 00, key): 0 to 1,023
    state          int2  NOT NULL,              -- 0 in flight, 1 completed, 2 released
    ns             text COLLATE "C" NOT NULL,
    key            bytea NOT NULL,
    owner          bytea NOT NULL,
    fingerprint    bytea NOT NULL,
    event_id       bytea NOT NULL,
    receipt        bytea,                       -- null unless completed
    metadata       bytea NOT NULL,
    rest           bytea NOT NULL,              -- what has no column, in the library's encoding
    PRIMARY KEY (bucket, ns, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX head_expiry ON @.head (expiry_slot) WHERE expiry_slot > 0;

-- The reports of the last 100 sweeps.
CREATE TABLE @.sweep (id int8 PRIMARY KEY, report bytea NOT NULL);
-- One row: whoever removes streams has it locked.
CREATE TABLE @.sweeper (one bool PRIMARY KEY DEFAULT true CHECK (one));
INSERT INTO @.sweeper DEFAULT VALUES;

-- Which server this is: another one's, or one that was promoted or restored, may have lost blocks.
CREATE OR REPLACE FUNCTION @.server_identity() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT (SELECT system_identifier FROM pg_control_system()) || '/' ||
           left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/' || '@.meta'::regclass::oid
$$;

CREATE OR REPLACE FUNCTION @.next_block() RETURNS int8 LANGUAGE plpgsql AS $$
DECLARE
    here text := @.server_identity();
BEGIN
    IF (SELECT identity FROM @.meta) <> here THEN
        PERFORM 1 FROM @.meta FOR UPDATE;
        IF (SELECT identity FROM @.meta) <> here THEN
            PERFORM setval('@.block', nextval('@.block') + 16777216);
            UPDATE @.meta SET identity = here;
        END IF;
    END IF;
    RETURN nextval('@.block');
END $$;

-- Where field 10 of `rest` stands: behind the conflict record, field 0f, if there is one. -1: there
-- is none.
CREATE OR REPLACE FUNCTION @.hold_place(rest bytea) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    i int := 8;  -- behind version, kind, and a namespace and a key of one byte each
    shift int := 0;
    length int := 0;
    byte int := 128;
BEGIN
    IF octet_length(rest) <= i THEN
        RETURN -1;
    END IF;
    IF get_byte(rest, i) = 15 THEN
        WHILE byte >= 128 LOOP
            i := i + 1;
            byte := get_byte(rest, i);
            length := length + ((byte & 127) << shift);
            shift := shift + 7;
        END LOOP;
        i := i + 1 + length;
    END IF;
    IF i < octet_length(rest) AND get_byte(rest, i) = 16 THEN
        RETURN i;
    END IF;
    RETURN -1;
END $$;

-- Whether a head in flight holds its key.
CREATE OR REPLACE FUNCTION @.holds(rest bytea) RETURNS bool LANGUAGE sql IMMUTABLE AS $$
    SELECT @.hold_place(rest) >= 0
$$;

-- Whether its holder has put it on hold: field 81 stands behind the three bytes of field 10.
CREATE OR REPLACE FUNCTION @.put_on_hold(rest bytea) RETURNS bool LANGUAGE sql IMMUTABLE AS $$
    SELECT place >= 0 AND place + 3 < octet_length(rest) AND get_byte(rest, place + 3) = 129
    FROM @.hold_place(rest) AS place
$$;

-- Whether a head in flight waits for a decision.
CREATE OR REPLACE FUNCTION @.is_held(rest bytea, lease_until_ms int8, now_ms int8) RETURNS bool
LANGUAGE sql IMMUTABLE AS $$
    SELECT @.holds(rest) AND (@.put_on_hold(rest) OR
                              (lease_until_ms <> 0 AND now_ms > lease_until_ms))
$$;

-- `rest` of a tombstone: field 80, when the claim began that it ends.
CREATE OR REPLACE FUNCTION @.ended(began_ms int8) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    digits bytea := '';
BEGIN
    IF began_ms = 0 THEN
        RETURN '';
    END IF;
    WHILE began_ms > 0 LOOP
        digits := digits || set_byte('\x00', 0, (began_ms & 255)::int);
        began_ms := began_ms >> 8;
    END LOOP;
    RETURN '\x010101012d02012d80'::bytea || set_byte('\x00', 0, octet_length(digits)) || digits;
END $$;

-- For people: claims as text.
CREATE OR REPLACE VIEW @.heads AS
    SELECT ns, encode(key, 'escape') AS key,
           CASE WHEN state = 0 AND @.is_held(rest, lease_until_ms,
                     (SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::int8,
                                      time_high_ms) FROM @.meta))
                THEN 'held' ELSE (ARRAY['in flight', 'completed', 'released'])[state + 1] END
               AS state,
           encode(owner, 'escape') AS owner, attempt, fence,
           to_timestamp(timestamp_ms / 1000.0) AS since,
           CASE WHEN expires_ms <> 0 AND expires_ms < 253402300800000
                THEN to_timestamp(expires_ms / 1000.0) END AS expires,
           CASE WHEN lease_until_ms <> 0 THEN to_timestamp(lease_until_ms / 1000.0) END
               AS lease_until,
           octet_length(receipt) AS receipt_bytes, encode(metadata, 'escape') AS note
    FROM @.head;

-- The functions below answer as the library does; see docs/postgres.md. They take part in the
-- transaction that they are called in. Whoever decides upon a head writes it only if it is still
-- the same, and looks again otherwise.

CREATE OR REPLACE FUNCTION @.bucket_of(ns text, key bytea) RETURNS int2
LANGUAGE sql IMMUTABLE AS $$
    SELECT (((get_byte(d, 0) << 4) | (get_byte(d, 1) >> 4)) & 1023)::int2
    FROM sha256(convert_to(ns, 'UTF8') || '\x00'::bytea || key) d
$$;

CREATE OR REPLACE FUNCTION @.now_ms() RETURNS int8 LANGUAGE sql VOLATILE AS $$
    SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::int8, time_high_ms)
    FROM @.meta
$$;

CREATE OR REPLACE FUNCTION @.slot_of(expires_ms int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN expires_ms = 0 THEN 0 ELSE expires_ms / 600000 + 1 END
$$;

CREATE OR REPLACE FUNCTION @.later(now_ms int8, by_ms int8) RETURNS int8
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN by_ms > 9223372036854775807 - now_ms THEN 9223372036854775807
                ELSE now_ms + by_ms END
$$;

CREATE OR REPLACE FUNCTION @.check_name(ns text, key bytea) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF ns IS NULL OR octet_length(ns) NOT BETWEEN 1 AND 255 OR ns COLLATE "C" !~ '^[ -~]+$' THEN
        RAISE EXCEPTION 'the namespace must be 1 to 255 bytes of printable ASCII'
            USING ERRCODE = '22023';
    ELSIF key IS NULL OR octet_length(key) NOT BETWEEN 1 AND 1024 THEN
        RAISE EXCEPTION 'the key must be 1 to 1,024 bytes' USING ERRCODE = '22023';
    END IF;
END $$;

-- What claim and remember share; with a receipt it is remember.
CREATE OR REPLACE FUNCTION @.begin_claim(
    in_ns text, in_key bytea, in_receipt bytea, in_owner bytea, in_lease_ms int8, in_ttl_ms int8,
    in_fingerprint bytea, in_event_id bytea, in_metadata bytea,
    OUT outcome text, OUT fence int8, OUT attempt int8, OUT receipt bytea, OUT owner bytea,
    OUT since_ms int8, OUT lease_until_ms int8, OUT expires_at_ms int8)
LANGUAGE plpgsql AS $$
DECLARE
    b int2;
    h record;
    found_head bool;
    now int8;
    live bool;
    seq int8;
    written int8;
BEGIN
    PERFORM @.check_name(in_ns, in_key);
    IF in_lease_ms < 1 OR in_ttl_ms < 1 THEN
        RAISE EXCEPTION 'lease and ttl must be at least 1 ms' USING ERRCODE = '22023';
    ELSIF octet_length(in_owner) > 1024 OR octet_length(in_fingerprint) > 1024 OR
          octet_length(in_event_id) > 1024 OR octet_length(in_metadata) > 65536 OR
          octet_length(in_receipt) > 16777216 THEN
        RAISE EXCEPTION 'owner, fingerprint and event id have at most 1,024 bytes, metadata '
            '65,536, a receipt 16 MiB' USING ERRCODE = '22023';
    END IF;
    b := @.bucket_of(in_ns, in_key);
    LOOP
        SELECT * INTO h FROM @.head t WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key;
        found_head := FOUND;
        now := @.now_ms();
        live := found_head AND h.state <> 2 AND (h.expires_ms = 0 OR now - 1000 <= h.expires_ms);
        IF live THEN
            fence := h.fence;
            attempt := h.attempt;
            owner := h.owner;
            since_ms := h.timestamp_ms;
            lease_until_ms := h.lease_until_ms;
            expires_at_ms := h.expires_ms;
            IF in_fingerprint <> '' AND h.fingerprint <> '' AND in_fingerprint <> h.fingerprint
            THEN
                outcome := 'mismatch';
                RETURN;
            ELSIF h.state = 1 THEN
                outcome := 'completed';
                receipt := h.receipt;
                RETURN;
            ELSIF @.is_held(h.rest, h.lease_until_ms, now) THEN
                outcome := 'held';
                RETURN;
            ELSIF h.lease_until_ms = 0 OR now <= h.lease_until_ms THEN
                outcome := 'in_flight';
                RETURN;
            END IF;
        END IF;
        seq := @.next_block() << 16;
        fence := seq;
        attempt := 1;
        IF found_head AND (h.state = 0 OR h.expires_ms = 0 OR now - 1000 <= h.expires_ms) THEN
            attempt := least(h.attempt + 1, 4294967295);
        END IF;
        owner := in_owner;
        since_ms := now;
        lease_until_ms := coalesce(@.later(now, in_lease_ms), 0);
        expires_at_ms := coalesce(@.later(now, in_ttl_ms), 0);
        IF expires_at_ms <> 0 THEN
            expires_at_ms := greatest(expires_at_ms, lease_until_ms);
        END IF;
        IF found_head THEN
            UPDATE @.head t SET sequence = seq, fence = seq, timestamp_ms = now,
                expires_ms = expires_at_ms, expiry_slot = @.slot_of(expires_at_ms),
                ttl_ms = CASE WHEN in_receipt IS NULL THEN coalesce(in_ttl_ms, 0) ELSE 0 END,
                lease_until_ms = begin_claim.lease_until_ms, attempt = begin_claim.attempt,
                state = CASE WHEN in_receipt IS NULL THEN 0 ELSE 1 END, owner = in_owner,
                fingerprint = in_fingerprint, event_id = in_event_id, receipt = in_receipt,
                metadata = in_metadata, rest = ''
            WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key AND t.sequence = h.sequence;
        ELSE
            INSERT INTO @.head AS t (sequence, fence, timestamp_ms, expires_ms, expiry_slot,
                ttl_ms, lease_until_ms, attempt, bucket, state, ns, key, owner, fingerprint,
                event_id, receipt, metadata, rest)
            VALUES (seq, seq, now, expires_at_ms, @.slot_of(expires_at_ms),
                CASE WHEN in_receipt IS NULL THEN coalesce(in_ttl_ms, 0) ELSE 0 END,
                begin_claim.lease_until_ms, 1, b,
                CASE WHEN in_receipt IS NULL THEN 0 ELSE 1 END, in_ns, in_key, in_owner,
                in_fingerprint, in_event_id, in_receipt, in_metadata, '')
            ON CONFLICT DO NOTHING;
        END IF;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written = 1 THEN
            outcome := CASE WHEN in_receipt IS NULL THEN 'claimed' ELSE 'new' END;
            receipt := in_receipt;
            RETURN;
        END IF;
    END LOOP;
END $$;

-- Claims a key: 'claimed' (do the work, with this fence), 'completed' (its receipt), 'in_flight'
-- (somebody else works), 'held' (nobody answered the last claim, and somebody has to decide),
-- 'mismatch' (another request has the key). No lease: it holds until the
-- ttl. A ttl of null: the key never expires.
CREATE OR REPLACE FUNCTION @.claim(
    ns text, key bytea, owner bytea DEFAULT '', lease_ms int8 DEFAULT NULL,
    ttl_ms int8 DEFAULT 86400000, fingerprint bytea DEFAULT '', event_id bytea DEFAULT '',
    metadata bytea DEFAULT '',
    OUT outcome text, OUT fence int8, OUT attempt int8, OUT receipt bytea, OUT held_by bytea,
    OUT since_ms int8, OUT lease_until_ms int8, OUT expires_at_ms int8)
LANGUAGE sql AS $$
    SELECT * FROM @.begin_claim($1, $2, NULL, $3, $4, $5, $6, $7, $8)
$$;

-- Claims and completes: 'new', or what claim answers a duplicate.
CREATE OR REPLACE FUNCTION @.remember(
    ns text, key bytea, receipt bytea, owner bytea DEFAULT '', ttl_ms int8 DEFAULT 86400000,
    fingerprint bytea DEFAULT '', event_id bytea DEFAULT '', metadata bytea DEFAULT '',
    OUT outcome text, OUT fence int8, OUT attempt int8, OUT known_receipt bytea,
    OUT held_by bytea, OUT since_ms int8, OUT lease_until_ms int8, OUT expires_at_ms int8)
LANGUAGE sql AS $$
    SELECT * FROM @.begin_claim($1, $2, coalesce($3, ''::bytea), $4, NULL, $5, $6, $7, $8)
$$;

-- 'completed', 'stale_claim', 'receipt_mismatch' or, without a fence, 'not_claimed'.
CREATE OR REPLACE FUNCTION @.complete(
    in_ns text, in_key bytea, in_fence int8, in_receipt bytea, in_ttl_ms int8 DEFAULT NULL,
    in_metadata bytea DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    b int2;
    h record;
    now int8;
    expires int8;
    seq int8;
BEGIN
    PERFORM @.check_name(in_ns, in_key);
    IF in_receipt IS NULL OR octet_length(in_receipt) > 16777216 OR in_ttl_ms < 1 OR
       octet_length(in_metadata) > 65536 THEN
        RAISE EXCEPTION 'a receipt has 0 bytes to 16 MiB, metadata at most 65,536, and a ttl is '
            'at least 1 ms' USING ERRCODE = '22023';
    END IF;
    b := @.bucket_of(in_ns, in_key);
    LOOP
        SELECT * INTO h FROM @.head t WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key;
        now := @.now_ms();
        IF NOT FOUND OR h.state = 2 OR
           (h.expires_ms <> 0 AND now - 1000 > h.expires_ms) OR h.fence <> in_fence THEN
            RETURN CASE WHEN in_fence IS NULL THEN 'not_claimed' ELSE 'stale_claim' END;
        ELSIF h.state = 1 THEN
            RETURN CASE WHEN h.receipt = in_receipt THEN 'completed' ELSE 'receipt_mismatch' END;
        END IF;
        expires := CASE WHEN in_ttl_ms IS NOT NULL THEN @.later(now, in_ttl_ms)
                        WHEN h.ttl_ms <> 0 THEN @.later(now, h.ttl_ms) ELSE h.expires_ms END;
        seq := @.next_block() << 16;
        UPDATE @.head t SET sequence = seq, timestamp_ms = now, expires_ms = expires,
            expiry_slot = @.slot_of(expires), ttl_ms = 0, lease_until_ms = 0, state = 1,
            receipt = in_receipt, metadata = coalesce(in_metadata, t.metadata)
        WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key AND t.sequence = h.sequence;
        IF FOUND THEN
            RETURN 'completed';
        END IF;
    END LOOP;
END $$;

-- 'released', 'nothing' (there was nothing to release) or 'stale_claim'.
CREATE OR REPLACE FUNCTION @.release(in_ns text, in_key bytea, in_fence int8) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    b int2;
    h record;
    now int8;
    expires int8;
    seq int8;
BEGIN
    PERFORM @.check_name(in_ns, in_key);
    b := @.bucket_of(in_ns, in_key);
    LOOP
        SELECT * INTO h FROM @.head t WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key;
        now := @.now_ms();
        IF NOT FOUND OR h.state <> 0 OR
           (h.expires_ms <> 0 AND now - 1000 > h.expires_ms) THEN
            RETURN 'nothing';
        ELSIF h.fence <> in_fence THEN
            RETURN 'stale_claim';
        END IF;
        expires := @.later(now, CASE WHEN h.ttl_ms <> 0 THEN h.ttl_ms ELSE 86400000 END);
        seq := @.next_block() << 16;
        UPDATE @.head t SET sequence = seq, timestamp_ms = now, expires_ms = expires,
            expiry_slot = @.slot_of(expires), ttl_ms = 0, lease_until_ms = 0, state = 2,
            fingerprint = '', rest = @.ended(h.timestamp_ms)
        WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key AND t.sequence = h.sequence;
        IF FOUND THEN
            RETURN 'released';
        END IF;
    END LOOP;
END $$;

-- 'noted' or 'stale_claim'.
CREATE OR REPLACE FUNCTION @.note(in_ns text, in_key bytea, in_fence int8, in_metadata bytea)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    b int2;
    h record;
    seq int8;
BEGIN
    PERFORM @.check_name(in_ns, in_key);
    IF in_metadata IS NULL OR octet_length(in_metadata) > 65536 THEN
        RAISE EXCEPTION 'metadata has at most 65,536 bytes' USING ERRCODE = '22023';
    END IF;
    b := @.bucket_of(in_ns, in_key);
    LOOP
        SELECT * INTO h FROM @.head t WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key;
        IF NOT FOUND OR h.state <> 0 OR
           (h.expires_ms <> 0 AND @.now_ms() - 1000 > h.expires_ms) OR
           h.fence IS DISTINCT FROM in_fence THEN
            RETURN 'stale_claim';
        END IF;
        seq := @.next_block() << 16;
        UPDATE @.head t SET sequence = seq, metadata = in_metadata
        WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key AND t.sequence = h.sequence;
        IF FOUND THEN
            RETURN 'noted';
        END IF;
    END LOOP;
END $$;

-- 'renewed', with the new end of the lease, or 'stale_claim'.
CREATE OR REPLACE FUNCTION @.renew(
    in_ns text, in_key bytea, in_fence int8, in_lease_ms int8,
    OUT outcome text, OUT lease_until_ms int8)
LANGUAGE plpgsql AS $$
DECLARE
    b int2;
    h record;
    now int8;
    expires int8;
    seq int8;
BEGIN
    PERFORM @.check_name(in_ns, in_key);
    IF in_lease_ms IS NULL OR in_lease_ms < 1 THEN
        RAISE EXCEPTION 'a lease is at least 1 ms' USING ERRCODE = '22023';
    END IF;
    b := @.bucket_of(in_ns, in_key);
    LOOP
        SELECT * INTO h FROM @.head t WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key;
        now := @.now_ms();
        IF NOT FOUND OR h.state <> 0 OR
           (h.expires_ms <> 0 AND now - 1000 > h.expires_ms) OR
           h.fence IS DISTINCT FROM in_fence OR @.put_on_hold(h.rest) THEN
            outcome := 'stale_claim';
            RETURN;
        END IF;
        lease_until_ms := @.later(now, in_lease_ms);
        expires := CASE WHEN h.expires_ms = 0 THEN 0
                        ELSE greatest(h.expires_ms, lease_until_ms) END;
        seq := @.next_block() << 16;
        UPDATE @.head t SET sequence = seq, expires_ms = expires,
            expiry_slot = @.slot_of(expires), lease_until_ms = renew.lease_until_ms
        WHERE t.bucket = b AND t.ns = in_ns AND t.key = in_key AND t.sequence = h.sequence;
        IF FOUND THEN
            outcome := 'renewed';
            RETURN;
        END IF;
        lease_until_ms := NULL;
    END LOOP;
END $$;

-- 'absent', 'in_flight' or 'completed'.
CREATE OR REPLACE FUNCTION @.lookup(
    in_ns text, in_key bytea,
    OUT outcome text, OUT fence int8, OUT attempt int8, OUT receipt bytea, OUT owner bytea,
    OUT since_ms int8, OUT lease_until_ms int8, OUT expires_at_ms int8)
LANGUAGE plpgsql AS $$
DECLARE
    h record;
BEGIN
    PERFORM @.check_name(in_ns, in_key);
    SELECT * INTO h FROM @.head t
    WHERE t.bucket = @.bucket_of(in_ns, in_key) AND t.ns = in_ns AND t.key = in_key;
    IF NOT FOUND OR h.state = 2 OR (h.expires_ms <> 0 AND @.now_ms() - 1000 > h.expires_ms) THEN
        outcome := 'absent';
        RETURN;
    END IF;
    outcome := CASE WHEN h.state = 1 THEN 'completed'
                    WHEN @.is_held(h.rest, h.lease_until_ms, @.now_ms()) THEN 'held'
                    ELSE 'in_flight' END;
    fence := h.fence;
    attempt := h.attempt;
    receipt := h.receipt;
    owner := h.owner;
    since_ms := h.timestamp_ms;
    lease_until_ms := h.lease_until_ms;
    expires_at_ms := h.expires_ms;
END $$;

INSERT INTO @.meta (format, store_id, identity)
SELECT 2, replace(gen_random_uuid()::text, '-', ''), @.server_identity()
ON CONFLICT DO NOTHING;
-- Since 2 the functions know what is held: those of 1 would take it over.
UPDATE @.meta SET format = 2 WHERE format < 2;
