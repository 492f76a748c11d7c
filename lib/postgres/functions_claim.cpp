// Claims in SQL, as lib/cache/decide.cpp has them; docs/postgres.md says what each function takes
// and gives. They take part in the transaction that they are called in.
#include "postgres/schema.hpp"

namespace dedup::pg {

const std::string_view kClaimFunctionsSql = R"sql(
DO $$ BEGIN
    IF to_regtype('@.answer') IS NULL THEN
        CREATE TYPE @.answer AS (
            outcome        text,
            ns             text,
            key            bytea,
            fence          int8,
            attempt        int8,
            receipt        bytea,
            owner          bytea,
            since_ms       int8,   -- claimed, or completed
            lease_until_ms int8,   -- 0: no lease
            expires_at_ms  int8,   -- 0: never
            fingerprint    bytea,
            event_id       bytea,
            metadata       bytea,  -- the last note, or what it was claimed with
            unanswered     text,   -- 'rerun' or 'hold'
            -- Who was there before, or who holds the key unanswered.
            previous_fence    int8,
            previous_attempt  int8,
            previous_owner    bytea,
            previous_event_id bytea,
            previous_began_ms int8,  -- 0: not known
            previous_ended_ms int8,
            previous_end      text,
            previous_note     bytea,
            previous_reason   bytea,
            previous_by       bytea);
    END IF;
END $$;

-- `a`, with what is known of the claim `h`, which has ended or waits for a decision.
CREATE OR REPLACE FUNCTION @.with_previous(a @.answer, h @.head) RETURNS @.answer
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @.rest := @.read_rest(h.rest);
BEGIN
    a.previous_fence := h.fence;
    a.previous_attempt := h.attempt;
    a.previous_owner := h.owner;
    a.previous_event_id := h.event_id;
    a.previous_note := h.metadata;
    a.previous_reason := r.reason;
    a.previous_by := r.said_by;
    IF h.state = 2 THEN
        a.previous_began_ms := r.began_ms;
        a.previous_ended_ms := h.timestamp_ms;
        a.previous_end := coalesce(@.verdict_name(r.verdict), 'released');
    ELSIF h.lease_until_ms <> 0 THEN
        a.previous_began_ms := h.timestamp_ms;
        a.previous_ended_ms := h.lease_until_ms;
        a.previous_end := coalesce(@.verdict_name(r.verdict), 'lease_ran_out');
    ELSE
        a.previous_began_ms := h.timestamp_ms;
        a.previous_ended_ms := h.expires_ms;
        a.previous_end := 'expired';
    END IF;
    RETURN a;
END $$;

CREATE OR REPLACE FUNCTION @.without_previous(a @.answer) RETURNS @.answer
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    a.previous_fence := NULL;
    a.previous_attempt := NULL;
    a.previous_owner := NULL;
    a.previous_event_id := NULL;
    a.previous_began_ms := NULL;
    a.previous_ended_ms := NULL;
    a.previous_end := NULL;
    a.previous_note := NULL;
    a.previous_reason := NULL;
    a.previous_by := NULL;
    RETURN a;
END $$;

-- What a lookup says of a head.
CREATE OR REPLACE FUNCTION @.answer_of(h @.head, now_ms int8) RETURNS @.answer
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    a @.answer;
BEGIN
    a.outcome := @.state_of(h, now_ms);
    a.ns := h.ns;
    a.key := h.key;
    IF a.outcome IN ('absent', 'released') THEN
        a.outcome := 'absent';
        RETURN a;
    END IF;
    a.fence := h.fence;
    a.attempt := h.attempt;
    a.receipt := h.receipt;
    a.owner := h.owner;
    a.since_ms := h.timestamp_ms;
    a.lease_until_ms := h.lease_until_ms;
    a.expires_at_ms := h.expires_ms;
    a.fingerprint := h.fingerprint;
    a.event_id := h.event_id;
    a.metadata := h.metadata;
    a.unanswered := 'rerun';
    IF a.outcome = 'in_flight' AND h.rest <> '' THEN
        a.unanswered := CASE WHEN (@.read_rest(h.rest)).hold THEN 'hold' ELSE 'rerun' END;
        IF @.is_held(h.rest, h.lease_until_ms, now_ms) THEN
            a.outcome := 'held';
            a := @.with_previous(a, h);
        END IF;
    END IF;
    RETURN a;
END $$;

-- A claim whose lease runs must not expire, or somebody else could claim its key.
CREATE OR REPLACE FUNCTION @.not_before_lease(h @.head) RETURNS int8
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN h.expires_ms = 0 THEN 0 ELSE greatest(h.expires_ms, h.lease_until_ms) END;
END $$;

-- Why a request gets no claim; 'absent' if it gets one.
CREATE OR REPLACE FUNCTION @.refusal_of(seen @.head, fingerprint bytea, now_ms int8)
RETURNS @.answer
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    a @.answer := @.answer_of(seen, now_ms);
BEGIN
    IF fingerprint <> '' AND a.fingerprint <> '' AND fingerprint <> a.fingerprint THEN
        a.outcome := 'mismatch';
        a.receipt := NULL;
        a.metadata := NULL;
        a := @.without_previous(a);
    ELSIF a.outcome = 'in_flight' AND a.lease_until_ms <> 0 AND now_ms > a.lease_until_ms THEN
        a.outcome := 'absent';
    END IF;
    RETURN a;
END $$;

-- A new claim upon `seen`, which nobody holds.
CREATE OR REPLACE FUNCTION @.new_claim(
    seen @.head, now_ms int8, owner bytea, ttl_ms int8, fingerprint bytea, event_id bytea,
    metadata bytea) RETURNS @.head
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head := seen;
BEGIN
    h.fence := 0;
    h.timestamp_ms := now_ms;
    h.expires_ms := coalesce(@.later(now_ms, ttl_ms), 0);
    h.ttl_ms := 0;
    h.lease_until_ms := 0;
    h.attempt := 1;
    h.state := 0;
    h.owner := owner;
    h.fingerprint := fingerprint;
    h.event_id := event_id;
    h.receipt := NULL;
    h.metadata := metadata;
    -- What has expired is forgotten, but not that nobody answered.
    IF seen.state = 0 OR @.state_of(seen, now_ms) = 'released' THEN
        h.attempt := least(seen.attempt + 1, 4294967295);
        -- Nobody may have looked for what was noted: it stays until a note takes its place, or
        -- somebody has decided about that claim.
        IF metadata = '' AND (@.read_rest(seen.rest)).verdict NOT IN (2, 3) THEN
            h.metadata := seen.metadata;
        END IF;
    END IF;
    h.rest := '';
    RETURN h;
END $$;

CREATE OR REPLACE FUNCTION @.check_request(
    ns text, key bytea, owner bytea, ttl_ms int8, fingerprint bytea, event_id bytea,
    metadata bytea) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @.check_stream(ns, key), @.check_duration('ttl_ms', ttl_ms);
    -- Most are so short that one look is enough. It is none if one of them is null.
    IF octet_length(owner) + octet_length(fingerprint) + octet_length(event_id) +
       octet_length(metadata) <= 1024 THEN
        RETURN;
    END IF;
    PERFORM @.check_bytes('owner', owner, 1024),
            @.check_bytes('fingerprint', fingerprint, 1024),
            @.check_bytes('event_id', event_id, 1024),
            @.check_bytes('metadata', metadata, 65536);
END $$;

-- Claims a key: 'claimed' (do the work, with this fence), 'completed' (its receipt), 'in_flight'
-- (somebody else works), 'held' (nobody answered the last claim, and somebody has to decide),
-- 'mismatch' (another request has the key). A lease of null: none; it holds until the ttl. A ttl
-- of null: the key never expires.
CREATE OR REPLACE FUNCTION @.claim(
    ns text, key bytea, owner bytea DEFAULT '', lease_ms int8 DEFAULT NULL,
    ttl_ms int8 DEFAULT 86400000, fingerprint bytea DEFAULT '', event_id bytea DEFAULT '',
    metadata bytea DEFAULT '', unanswered text DEFAULT 'rerun', attempts_max int8 DEFAULT 0)
RETURNS @.answer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen @.head;
    h @.head;
    a @.answer;
    now_ms int8;
BEGIN
    PERFORM @.check_request(ns, key, owner, ttl_ms, fingerprint, event_id, metadata),
            @.check_duration('lease_ms', lease_ms);
    IF unanswered IS NULL OR unanswered NOT IN ('rerun', 'hold') THEN
        PERFORM @.refuse(format('unanswered is %s; it must be rerun or hold',
                                coalesce(unanswered, 'null')));
    ELSIF attempts_max IS NULL OR attempts_max < 0 THEN
        PERFORM @.refuse(format('attempts_max is %s; it must be at least 0, for no limit',
                                coalesce(attempts_max::text, 'null')));
    END IF;
    LOOP
        seen := @.head_of(ns, key);
        now_ms := @.now_ms();
        a := @.refusal_of(seen, fingerprint, now_ms);
        IF a.outcome <> 'absent' THEN
            RETURN a;
        END IF;
        h := @.new_claim(seen, now_ms, owner, ttl_ms, fingerprint, event_id, metadata);
        h.ttl_ms := coalesce(ttl_ms, 0);
        IF lease_ms IS NOT NULL THEN
            h.lease_until_ms := @.later(now_ms, lease_ms);
            h.expires_ms := @.not_before_lease(h);
        END IF;
        IF unanswered = 'hold' OR (attempts_max > 0 AND h.attempt >= attempts_max) THEN
            h.expires_ms := 0;
            h.rest := @.with_verdict('', true, 0, '', '');
        END IF;
        h.fence := @.put(h);
        IF h.fence IS NOT NULL THEN
            h.sequence := h.fence;
            a := @.answer_of(h, now_ms);
            a.outcome := 'claimed';
            RETURN CASE WHEN h.attempt > 1 THEN @.with_previous(a, seen) ELSE a END;
        END IF;
    END LOOP;
END $$;

-- Claims and completes: 'new', or what claim answers a duplicate.
CREATE OR REPLACE FUNCTION @.remember(
    ns text, key bytea, receipt bytea, owner bytea DEFAULT '', ttl_ms int8 DEFAULT 86400000,
    fingerprint bytea DEFAULT '', event_id bytea DEFAULT '', metadata bytea DEFAULT '')
RETURNS @.answer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen @.head;
    h @.head;
    a @.answer;
    now_ms int8;
BEGIN
    PERFORM @.check_request(ns, key, owner, ttl_ms, fingerprint, event_id, metadata),
            @.check_bytes('receipt', receipt, 16777216);
    LOOP
        seen := @.head_of(ns, key);
        now_ms := @.now_ms();
        a := @.refusal_of(seen, fingerprint, now_ms);
        IF a.outcome <> 'absent' THEN
            RETURN a;
        END IF;
        h := @.new_claim(seen, now_ms, owner, ttl_ms, fingerprint, event_id, metadata);
        h.state := 1;
        h.receipt := receipt;
        h.fence := @.put(h);
        IF h.fence IS NOT NULL THEN
            h.sequence := h.fence;
            a := @.answer_of(h, now_ms);
            a.outcome := 'new';
            RETURN a;
        END IF;
    END LOOP;
END $$;

-- What is known of a key: 'absent', 'in_flight', 'held' or 'completed'. Writes nothing.
CREATE OR REPLACE FUNCTION @.lookup(ns text, key bytea) RETURNS @.answer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @.check_stream(ns, key);
    RETURN @.answer_of(@.head_of(ns, key), @.now_ms());
END $$;
)sql";

}  // namespace dedup::pg
