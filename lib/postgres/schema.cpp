#include "postgres/schema.hpp"

#include <fmt/format.h>

#include "postgres/statements.hpp"

namespace dedup::pg {

const std::string_view kSchemaSql = R"sql(
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
)sql";

Result<void> check_format(std::int64_t format, std::string_view schema) {
    if (format == kFormat) {
        return {};
    }
    return std::unexpected(Error{
        Code::unsupported_version,
        fmt::format("schema {} has format {}, and this library works with {}: {}", schema, format,
                    kFormat,
                    format < kFormat ? "`dedupctl init` brings it up to date, and programs with an "
                                       "older library will refuse it"
                                     : "use a newer one")});
}

}  // namespace dedup::pg
