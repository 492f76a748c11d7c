// The column `rest` in SQL: what has no column of its own, in the library's encoding of a record
// (docs/format.md) that has nothing else. It is empty for most heads.
#include "postgres/schema.hpp"

namespace dedup::pg {

const std::string_view kRestFunctionsSql = R"sql(
DO $$ BEGIN
    IF to_regtype('@.rest') IS NULL THEN
        CREATE TYPE @.rest AS (
            conflict bytea,    -- as it is encoded
            hold     bool,     -- in flight: never taken over
            began_ms int8,     -- of a tombstone: when the claim began that it ended; 0: not known
            verdict  int,      -- 0 none, 1 held, 2 resolved, 3 forgotten
            said_by  bytea,
            reason   bytea,
            unknown  bytea);   -- fields of a newer library, kept as they are
    END IF;
END $$;

-- The number at `place`, seven bits a byte, the lowest ones first; and the place behind it.
CREATE OR REPLACE FUNCTION @.read_varint(bytes bytea, INOUT place int, OUT value int8)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    byte int;
BEGIN
    value := 0;
    FOR i IN 0..4 LOOP
        byte := get_byte(bytes, place);
        place := place + 1;
        value := value | ((byte & 127)::int8 << (7 * i));
        EXIT WHEN byte < 128;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION @.read_rest(encoded bytea) RETURNS @.rest
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @.rest := ROW('', false, 0, 0, '', '', '')::@.rest;
    place int := 8;  -- behind version, kind, and a namespace and a key of one byte each
    name_place int;
    tag int;
    field bytea;
    size int;
BEGIN
    WHILE place < octet_length(encoded) LOOP
        tag := get_byte(encoded, place);
        IF tag > 129 THEN
            r.unknown := substring(encoded FROM place + 1);
            EXIT;
        END IF;
        SELECT v.place, v.value INTO place, size FROM @.read_varint(encoded, place + 1) v;
        field := substring(encoded FROM place + 1 FOR size);
        place := place + size;
        IF tag = 15 THEN
            r.conflict := field;
        ELSIF tag = 16 THEN
            r.hold := true;
        ELSIF tag = 128 THEN
            FOR i IN REVERSE octet_length(field) - 1..0 LOOP
                r.began_ms := (r.began_ms << 8) | get_byte(field, i);
            END LOOP;
        ELSIF tag = 129 THEN
            r.verdict := get_byte(field, 0);
            SELECT v.place, v.value INTO name_place, size FROM @.read_varint(field, 1) v;
            r.said_by := substring(field FROM name_place + 1 FOR size);
            r.reason := substring(field FROM name_place + size + 1);
        END IF;
    END LOOP;
    RETURN r;
END $$;

CREATE OR REPLACE FUNCTION @.varint(value int) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bytes bytea := '';
BEGIN
    WHILE value > 127 LOOP
        bytes := bytes || @.byte((value & 127) | 128);
        value := value >> 7;
    END LOOP;
    RETURN bytes || @.byte(value);
END $$;

CREATE OR REPLACE FUNCTION @.byte(value int) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN substring(int4send(value) FROM 4);
END $$;

CREATE OR REPLACE FUNCTION @.field(tag int, payload bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN @.byte(tag) || @.varint(octet_length(payload)) || payload;
END $$;

CREATE OR REPLACE FUNCTION @.write_rest(r @.rest) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fields bytea := '';
    digits bytea := '';
BEGIN
    IF r.conflict <> '' THEN
        fields := @.field(15, r.conflict);
    END IF;
    IF r.hold THEN
        fields := fields || @.field(16, @.byte(1));
    END IF;
    IF r.began_ms > 0 THEN
        WHILE r.began_ms > 0 LOOP
            digits := digits || @.byte((r.began_ms & 255)::int);
            r.began_ms := r.began_ms >> 8;
        END LOOP;
        fields := fields || @.field(128, digits);
    END IF;
    IF r.verdict > 0 THEN
        fields := fields || @.field(129, @.byte(r.verdict) || @.varint(octet_length(r.said_by)) ||
                                             r.said_by || r.reason);
    END IF;
    fields := fields || r.unknown;
    RETURN CASE WHEN fields = '' THEN fields ELSE decode('010101012d02012d', 'hex') || fields END;
END $$;

-- `encoded`, as it is when a claim holds its key or not, and with what somebody says of it.
CREATE OR REPLACE FUNCTION @.with_verdict(
    encoded bytea, hold bool, verdict int, said_by bytea, reason bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @.rest := @.read_rest(encoded);
BEGIN
    r.hold := hold;
    r.verdict := verdict;
    r.said_by := said_by;
    r.reason := reason;
    RETURN @.write_rest(r);
END $$;

-- Whether a head in flight waits for a decision.
CREATE OR REPLACE FUNCTION @.is_held(rest bytea, lease_until_ms int8, now_ms int8) RETURNS bool
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @.rest := @.read_rest(rest);
BEGIN
    RETURN r.hold AND (r.verdict = 1 OR (lease_until_ms <> 0 AND now_ms > lease_until_ms));
END $$;

CREATE OR REPLACE FUNCTION @.verdict_name(verdict int) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (ARRAY['held', 'resolved', 'forgotten'])[verdict];
END $$;

-- For people: what somebody has said of a claim; null if nobody has.
CREATE OR REPLACE FUNCTION @.said(rest bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @.rest := @.read_rest(rest);
BEGIN
    RETURN @.verdict_name(r.verdict) || ' by ' || encode(r.said_by, 'escape') || ': ' ||
           encode(r.reason, 'escape');
END $$;

-- For people: a time; null if there is none, or none that has a date.
CREATE OR REPLACE FUNCTION @.date_of(time_ms int8) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN time_ms > 0 AND time_ms < 253402300800000
                THEN to_timestamp(time_ms / 1000.0) END;
END $$;

-- For people: claims as text.
CREATE OR REPLACE VIEW @.heads AS
    SELECT ns, encode(key, 'escape') AS key,
           CASE WHEN state = 0 AND rest <> '' AND @.is_held(rest, lease_until_ms,
                     (SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::int8,
                                      time_high_ms) FROM @.meta))
                THEN 'held' ELSE (ARRAY['in flight', 'completed', 'released'])[state + 1] END
               AS state,
           encode(owner, 'escape') AS owner, attempt, fence, @.date_of(timestamp_ms) AS since,
           @.date_of(expires_ms) AS expires, @.date_of(lease_until_ms) AS lease_until,
           octet_length(receipt) AS receipt_bytes, encode(metadata, 'escape') AS note,
           encode(event_id, 'escape') AS event_id,
           CASE WHEN rest <> '' THEN @.said(rest) END AS said
    FROM @.head;
)sql";

}  // namespace dedup::pg
