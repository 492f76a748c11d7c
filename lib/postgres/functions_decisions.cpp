// What is said of claims beside their answer, in SQL, as lib/cache/unanswered.cpp has it: notes,
// holds, and decisions from outside.
#include "postgres/schema.hpp"

namespace dedup::pg {

const std::string_view kDecisionFunctionsSql = R"sql(
-- Writes down what the holder is about to do: 'noted' or 'stale_claim', which it is once the key is
-- held, too: somebody may be deciding by the note that was there.
CREATE OR REPLACE FUNCTION @.note(ns text, key bytea, fence int8, metadata bytea) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head;
    now_ms int8;
BEGIN
    PERFORM @.check_claim(ns, key, fence), @.check_bytes('metadata', metadata, 65536);
    LOOP
        h := @.head_of(ns, key);
        now_ms := @.now_ms();
        IF @.state_of(h, now_ms) <> 'in_flight' OR h.fence <> fence OR
           @.is_held(h.rest, h.lease_until_ms, now_ms) THEN
            RETURN 'stale_claim';
        END IF;
        h.metadata := metadata;
        IF @.put(h) IS NOT NULL THEN
            RETURN 'noted';
        END IF;
    END LOOP;
END $$;

-- For a holder who cannot say whether its work was done: 'held' until somebody decides, or
-- 'stale_claim'.
CREATE OR REPLACE FUNCTION @.hold(ns text, key bytea, fence int8, reason bytea) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head;
    now_ms int8;
BEGIN
    PERFORM @.check_claim(ns, key, fence), @.check_bytes('reason', reason, 4096);
    LOOP
        h := @.head_of(ns, key);
        now_ms := @.now_ms();
        IF @.state_of(h, now_ms) <> 'in_flight' OR h.fence <> fence THEN
            RETURN 'stale_claim';
        END IF;
        -- The receipt will live as long as the claim would have lived from now on.
        IF h.expires_ms <> 0 AND h.ttl_ms = 0 THEN
            h.ttl_ms := greatest(h.expires_ms - now_ms, 1);
        END IF;
        h.expires_ms := 0;
        h.lease_until_ms := now_ms;
        h.rest := @.with_verdict(h.rest, true, 1, h.owner, reason);
        IF @.put(h) IS NOT NULL THEN
            RETURN 'held';
        END IF;
    END LOOP;
END $$;

-- Answers for a claim whose holder did not, under the fence that was looked at: 'completed' (it had
-- been done, with this receipt), 'released' (it had not), 'busy' (its lease still runs),
-- 'stale_claim' or 'receipt_mismatch' (somebody has decided otherwise). Deciding the same again
-- gives the same.
CREATE OR REPLACE FUNCTION @.resolve(
    ns text, key bytea, fence int8, done bool, reason bytea,
    by bytea DEFAULT convert_to(session_user, 'UTF8'), receipt bytea DEFAULT NULL,
    ttl_ms int8 DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head;
    now_ms int8;
    state text;
    verdict int;
BEGIN
    PERFORM @.check_claim(ns, key, fence), @.check_reason(reason, "by"),
            @.check_duration('ttl_ms', ttl_ms);
    IF fence = 0 THEN
        PERFORM @.refuse('fence is 0; name the claim that you have looked at');
    ELSIF done IS NULL THEN
        PERFORM @.refuse('done is null; say whether the work had been done');
    ELSIF done THEN
        PERFORM @.check_bytes('receipt', receipt, 16777216);
    ELSIF receipt IS NOT NULL THEN
        PERFORM @.refuse('receipt is given, but done is false');
    END IF;
    LOOP
        h := @.head_of(ns, key);
        now_ms := @.now_ms();
        state := @.state_of(h, now_ms);
        verdict := (@.read_rest(h.rest)).verdict;
        IF state = 'absent' OR h.fence <> fence OR
           (state = 'released' AND (done OR verdict <> 2)) THEN
            RETURN 'stale_claim';
        ELSIF state = 'released' THEN
            RETURN 'released';
        ELSIF state = 'completed' THEN
            RETURN CASE WHEN done AND h.receipt = receipt THEN 'completed'
                        ELSE 'receipt_mismatch' END;
        ELSIF verdict <> 1 AND h.lease_until_ms <> 0 AND now_ms <= h.lease_until_ms THEN
            RETURN 'busy';
        END IF;
        IF done THEN
            h := @.completed(h, now_ms, receipt, ttl_ms);
        ELSE
            h := @.released(h, now_ms);
        END IF;
        h.rest := @.with_verdict(h.rest, false, 2, "by", reason);
        IF @.put(h) IS NOT NULL THEN
            RETURN CASE WHEN done THEN 'completed' ELSE 'released' END;
        END IF;
    END LOOP;
END $$;

-- Makes a completed key claimable again: 'forgotten', 'nothing' (it is not completed) or
-- 'stale_claim' (another claim was completed). A fence of 0: whichever. The receipt is gone, as the
-- table has heads only; who says so and why stays until the next claim.
CREATE OR REPLACE FUNCTION @.forget(
    ns text, key bytea, fence int8, reason bytea,
    by bytea DEFAULT convert_to(session_user, 'UTF8')) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h @.head;
    now_ms int8;
BEGIN
    PERFORM @.check_claim(ns, key, fence), @.check_reason(reason, "by");
    LOOP
        h := @.head_of(ns, key);
        now_ms := @.now_ms();
        IF @.state_of(h, now_ms) <> 'completed' THEN
            RETURN 'nothing';
        ELSIF h.fence <> coalesce(nullif(fence, 0), h.fence) THEN
            RETURN 'stale_claim';
        END IF;
        h := @.released(h, now_ms);
        h.rest := @.with_verdict(h.rest, false, 3, "by", reason);
        IF @.put(h) IS NOT NULL THEN
            RETURN 'forgotten';
        END IF;
    END LOOP;
END $$;

-- The keys that wait for a decision, the longest first; '' for those of all namespaces. Each row is
-- what lookup says of the key.
CREATE OR REPLACE FUNCTION @.held(ns text DEFAULT '') RETURNS SETOF @.answer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now_ms int8 := @.now_ms();
BEGIN
    IF ns IS NULL THEN
        PERFORM @.refuse('ns is null; the empty one stands for all');
    END IF;
    RETURN QUERY
        SELECT a.* FROM @.head h, LATERAL @.answer_of(h, now_ms) a
        WHERE h.state = 0 AND h.rest <> '' AND a.outcome = 'held' AND
              (held.ns = '' OR h.ns = held.ns COLLATE "C")
        ORDER BY a.previous_ended_ms;
END $$;
)sql";

}  // namespace dedup::pg
