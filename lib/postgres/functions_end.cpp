// How a claim ends, or goes on, in SQL, as lib/cache/ending.cpp and decide.cpp have it.
#include "postgres/schema.hpp"

namespace dedup::pg {

const std::string_view kEndFunctionsSql = R"sql(
-- `h`, which is in flight, as it is completed now.
CREATE OR REPLACE FUNCTION @.completed(h @.head, now_ms int8, receipt bytea, ttl_ms int8)
RETURNS @.head
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    h.expires_ms := coalesce(@.later(now_ms, coalesce(ttl_ms, nullif(h.ttl_ms, 0))), h.expires_ms);
    h.timestamp_ms := now_ms;
    h.ttl_ms := 0;
    h.lease_until_ms := 0;
    h.state := 1;
    h.receipt := receipt;
    h.rest := @.with_verdict(h.rest, false, 0, '', '');
    RETURN h;
END $$;

-- `h`, as somebody else may claim it from now on. A tombstone lives as long as the receipt would.
CREATE OR REPLACE FUNCTION @.released(h @.head, now_ms int8) RETURNS @.head
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @.rest := @.read_rest(h.rest);
BEGIN
    -- A completion does not say when its claim began.
    r.began_ms := CASE WHEN h.state = 0 THEN h.timestamp_ms ELSE 0 END;
    r.conflict := '';
    r.hold := false;
    r.verdict := 0;
    h.rest := @.write_rest(r);
    h.expires_ms := @.later(now_ms, coalesce(nullif(h.ttl_ms, 0), 86400000));
    h.timestamp_ms := now_ms;
    h.ttl_ms := 0;
    h.lease_until_ms := 0;
    h.state := 2;
    h.fingerprint := '';
    h.receipt := NULL;
    RETURN h;
END $$;

-- 'completed', 'stale_claim', 'receipt_mismatch'; with a fence of 0, whichever claim is current is
-- completed, unless it is held ('stale_claim'), and there may be none: 'not_claimed'. A ttl of null:
-- what the claim asked for. A metadata of null: the claim's stays.
CREATE OR REPLACE FUNCTION @.complete(
    ns text, key bytea, fence int8, receipt bytea, ttl_ms int8 DEFAULT NULL,
    metadata bytea DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head;
    now_ms int8;
BEGIN
    PERFORM @.check_claim(ns, key, fence), @.check_bytes('receipt', receipt, 16777216),
            @.check_duration('ttl_ms', ttl_ms),
            @.check_bytes('metadata', coalesce(metadata, ''), 65536);
    LOOP
        h := @.head_of(ns, key);
        now_ms := @.now_ms();
        IF @.state_of(h, now_ms) NOT IN ('in_flight', 'completed') OR
           h.fence <> coalesce(nullif(fence, 0), h.fence) THEN
            RETURN CASE WHEN fence = 0 THEN 'not_claimed' ELSE 'stale_claim' END;
        ELSIF h.state = 1 THEN
            RETURN CASE WHEN h.receipt = receipt THEN 'completed' ELSE 'receipt_mismatch' END;
        ELSIF fence = 0 AND @.is_held(h.rest, h.lease_until_ms, now_ms) THEN
            RETURN 'stale_claim';
        END IF;
        h.metadata := coalesce(metadata, h.metadata);
        IF @.put(@.completed(h, now_ms, receipt, ttl_ms)) IS NOT NULL THEN
            RETURN 'completed';
        END IF;
    END LOOP;
END $$;

-- 'released', 'nothing' (there was nothing to release) or 'stale_claim'. A fence of 0: whichever
-- claim is current, unless it is held ('stale_claim').
CREATE OR REPLACE FUNCTION @.release(ns text, key bytea, fence int8) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head;
    now_ms int8;
BEGIN
    PERFORM @.check_claim(ns, key, fence);
    LOOP
        h := @.head_of(ns, key);
        now_ms := @.now_ms();
        IF h.sequence <> 0 AND fence > h.fence THEN
            RETURN 'stale_claim';  -- newer than all that is known of the key
        ELSIF @.state_of(h, now_ms) <> 'in_flight' THEN
            RETURN 'nothing';
        ELSIF h.fence <> coalesce(nullif(fence, 0), h.fence) OR
              (fence = 0 AND @.is_held(h.rest, h.lease_until_ms, now_ms)) THEN
            RETURN 'stale_claim';
        ELSIF @.put(@.released(h, now_ms)) IS NOT NULL THEN
            RETURN 'released';
        END IF;
    END LOOP;
END $$;

-- 'renewed', with the new end of the lease, or 'stale_claim'.
CREATE OR REPLACE FUNCTION @.renew(
    ns text, key bytea, fence int8, lease_ms int8, OUT outcome text, OUT lease_until_ms int8)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head;
    now_ms int8;
BEGIN
    PERFORM @.check_claim(ns, key, fence), @.check_duration('lease_ms', lease_ms);
    IF lease_ms IS NULL THEN
        PERFORM @.refuse('lease_ms is null; it must be at least 1');
    END IF;
    LOOP
        h := @.head_of(ns, key);
        now_ms := @.now_ms();
        IF @.state_of(h, now_ms) <> 'in_flight' OR h.fence <> fence OR
           (@.read_rest(h.rest)).verdict = 1 THEN
            outcome := 'stale_claim';
            RETURN;
        END IF;
        h.lease_until_ms := @.later(now_ms, lease_ms);
        h.expires_ms := @.not_before_lease(h);
        IF @.put(h) IS NOT NULL THEN
            outcome := 'renewed';
            lease_until_ms := h.lease_until_ms;
            RETURN;
        END IF;
    END LOOP;
END $$;
)sql";

}  // namespace dedup::pg
