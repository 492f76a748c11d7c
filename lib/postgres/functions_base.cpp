// What the SQL functions are made of: sequences, time, arguments, and how a head is read and
// written.
#include "postgres/schema.hpp"

namespace dedup::pg {

const std::string_view kBaseFunctionsSql = R"sql(
-- Functions of older formats, where they take or give something else by now.
DO $$ BEGIN
    IF (SELECT format FROM @.meta) < 3 THEN
        DROP FUNCTION IF EXISTS @.begin_claim, @.claim, @.remember, @.lookup, @.complete,
            @.release, @.renew, @.note, @.hold_place, @.holds, @.put_on_hold, @.ended,
            @.check_name, @.slot_of;
    END IF;
END $$;

-- Which server this is: another one's, or one that was promoted or restored, may have lost blocks.
CREATE OR REPLACE FUNCTION @.server_identity() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system()) || '/' ||
           left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/' || '@.meta'::regclass::oid;
END $$;

CREATE OR REPLACE FUNCTION @.next_block() RETURNS int8
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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

CREATE OR REPLACE FUNCTION @.now_ms() RETURNS int8
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::int8, time_high_ms)
            FROM @.meta);
END $$;

CREATE OR REPLACE FUNCTION @.later(now_ms int8, by_ms int8) RETURNS int8
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN by_ms > 9223372036854775807 - now_ms THEN 9223372036854775807
                ELSE now_ms + by_ms END;
END $$;

CREATE OR REPLACE FUNCTION @.bucket_of(ns text, key bytea) RETURNS int2
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    digest bytea := sha256(convert_to(ns, 'UTF8') || decode('00', 'hex') || key);
BEGIN
    RETURN (((get_byte(digest, 0) << 4) | (get_byte(digest, 1) >> 4)) & 1023)::int2;
END $$;

-- Arguments: what is wrong with them raises 22023 and names the argument.

CREATE OR REPLACE FUNCTION @.refuse(message text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = message, ERRCODE = '22023';
END $$;

CREATE OR REPLACE FUNCTION @.check_bytes(
    name text, value bytea, bytes_max int, bytes_min int DEFAULT 0) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF octet_length(value) BETWEEN bytes_min AND bytes_max THEN
        RETURN;
    END IF;
    PERFORM @.refuse(format(
        CASE WHEN value IS NULL THEN '%1$s is null; it needs %2$s to %4$s bytes'
             WHEN value = '' THEN '%1$s is empty; it needs %2$s to %4$s bytes'
             ELSE '%1$s is %3$s bytes; at most %4$s are allowed' END,
        name, bytes_min, to_char(octet_length(value), 'FM9,999,999,999'),
        to_char(bytes_max, 'FM9,999,999,999')));
END $$;

-- Null means something else for each.
CREATE OR REPLACE FUNCTION @.check_duration(name text, value_ms int8) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF value_ms < 1 THEN
        PERFORM @.refuse(format('%s is %s; it must be at least 1', name, value_ms));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION @.check_stream(ns text, key bytea) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF ns IS NULL THEN
        PERFORM @.refuse('ns is null; it needs 1 to 255 bytes of printable ASCII');
    ELSIF octet_length(ns) NOT BETWEEN 1 AND 255 OR ns COLLATE "C" !~ '^[ -~]+$' THEN
        PERFORM @.refuse('ns must be 1 to 255 bytes of printable ASCII');
    END IF;
    PERFORM @.check_bytes('key', key, 1024, 1);
END $$;

CREATE OR REPLACE FUNCTION @.check_claim(ns text, key bytea, fence int8) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @.check_stream(ns, key);
    IF fence IS NULL THEN
        PERFORM @.refuse('fence is null; it is the number of the claim that is meant');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION @.check_reason(reason bytea, said_by bytea) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @.check_bytes('reason', reason, 4096, 1), @.check_bytes('by', said_by, 1024);
END $$;

-- Heads. Whoever decides upon one writes it only if it is still the same, and looks again
-- otherwise. All that read one are volatile: whoever has lost a race must see the winner.

-- The head of a stream, whatever its state and age; its sequence is 0 if there is none.
CREATE OR REPLACE FUNCTION @.head_of(in_ns text, in_key bytea) RETURNS @.head
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head;
    in_bucket int2 := @.bucket_of(in_ns, in_key);
BEGIN
    SELECT * INTO h FROM @.head t
    WHERE t.bucket = in_bucket AND t.ns = in_ns COLLATE "C" AND t.key = in_key;
    IF NOT FOUND THEN
        h.bucket := in_bucket;
        h.ns := in_ns;
        h.key := in_key;
        h.sequence := 0;
    END IF;
    RETURN h;
END $$;

-- Writes `h` in place of the head that it was made of, whose sequence it still has. A fence of 0
-- becomes its own sequence. Gives that sequence; null if the stream has another head by now.
CREATE OR REPLACE FUNCTION @.put(h @.head) RETURNS int8
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own int8 := @.next_block() << 16;
BEGIN
    h.expiry_slot := CASE WHEN h.expires_ms = 0 THEN 0 ELSE h.expires_ms / 600000 + 1 END;
    h.fence := CASE WHEN h.fence = 0 THEN own ELSE h.fence END;
    IF h.sequence = 0 THEN
        h.sequence := own;
        INSERT INTO @.head SELECT h.* WHERE own > (SELECT sequence_floor FROM @.meta)
        ON CONFLICT DO NOTHING;
    ELSE
        UPDATE @.head t SET sequence = own, fence = h.fence, timestamp_ms = h.timestamp_ms,
            expires_ms = h.expires_ms, expiry_slot = h.expiry_slot, ttl_ms = h.ttl_ms,
            lease_until_ms = h.lease_until_ms, attempt = h.attempt, state = h.state,
            owner = h.owner, fingerprint = h.fingerprint, event_id = h.event_id,
            receipt = h.receipt, metadata = h.metadata, rest = h.rest
        WHERE t.bucket = h.bucket AND t.ns = h.ns AND t.key = h.key AND t.sequence = h.sequence;
    END IF;
    RETURN CASE WHEN FOUND THEN own END;
END $$;

-- What a head comes to now: 'absent' (also if it has expired), 'in_flight', 'completed' or
-- 'released'.
CREATE OR REPLACE FUNCTION @.state_of(h @.head, now_ms int8) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF h.sequence = 0 OR (h.expires_ms <> 0 AND now_ms - 1000 > h.expires_ms) THEN
        RETURN 'absent';
    END IF;
    RETURN (ARRAY['in_flight', 'completed', 'released'])[h.state + 1];
END $$;
)sql";

const std::string_view kFormatSql = R"sql(
INSERT INTO @.meta (format, store_id, identity)
SELECT 3, replace(gen_random_uuid()::text, '-', ''), @.server_identity()
ON CONFLICT DO NOTHING;
-- Since 2 the functions know what is held: those of 1 would take it over. Since 3 they take and
-- give more, and those of older libraries would stand beside them.
UPDATE @.meta SET format = 3 WHERE format < 3;
)sql";

}  // namespace dedup::pg
