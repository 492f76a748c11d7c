// A store in a PostgreSQL database: for callers on more than one machine.
//
// docs/postgres.md says how to set one up, what it promises when a primary is lost, and what a
// role must be allowed to do.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "dedup/store.hpp"

namespace dedup {

// What an acknowledged append survives, besides a crash of the server.
enum class PostgresDurability : std::uint8_t {
    // The loss of the primary, too. A server that has asynchronous standbys alone (or a replication
    // slot for one) is refused, as a failover to one of them loses what was acknowledged. A server
    // without any standby has nobody to fail over to, and is accepted.
    failover,
    // Not even that is asked for: whatever the server is set up to do.
    local,
};

struct PostgresOptions {
    bool read_only = false;
    // The schema that all names are in: letters, digits and '_', not a digit first, at most 63.
    std::string schema = "dedup";
    PostgresDurability durability = PostgresDurability::failover;
    // Statements are prepared once for each connection. False: for poolers that hand a
    // connection to another client after each transaction (pgbouncer's transaction mode).
    bool prepared = true;
    std::size_t connections_max = 8;  // 1 to 100; callers beyond that wait for one
    // How long one call may take that needs the server; it gives `unavailable` then, or
    // outcome_unknown. 100 ms to 1 h. Longer are: an append whose answer was lost, as finding out
    // what became of it may take as long again; an append that waits for others before it; each
    // 64 MiB of a batch beyond the first, and each transaction of a sweep, which have as long each;
    // what reads the whole table (a scan, the statistics, a sweep's counts), 60 times as long; and
    // connecting, for which libpq waits at least two seconds for an address that says nothing.
    std::chrono::milliseconds timeout{10'000};
    // Empty: the server's clock, which all clients of the store share.
    Clock clock = {};
    bool trust_clock = false;  // as in OpenOptions
    std::chrono::milliseconds grace = kDefaultGrace;
    // Kept to exactly by a store that one process writes to. Several may together go beyond it by
    // what they append in a few seconds. Bytes are those of the records, not of the database.
    Capacity capacity = {};
};

// Whether open() takes this for a database rather than for a directory: "postgresql://..." or
// "postgres://...".
[[nodiscard]] DEDUP_API bool is_postgres_url(std::string_view path);

// Opens the store in the database at `url`, a libpq URL with any number of hosts:
// "postgresql://user@host1,host2/database". Beside libpq's own parameters it may have `schema`,
// `durability=local`, `prepared=false` and `connections`, which win over `options`.
// Any number of processes may have the store open for writing.
//
// It fulfils the contract of StreamStore with these freedoms: history() gives the head alone; no
// version has a place; a sequence is unique and rises within its stream, but clients take them
// from blocks of 65,536, so that numbers may be left out, and a stream that began later may have a
// lower one. Forked children get `closed`, as with a store in a directory, and may destroy it.
// Errors: invalid_argument (the URL, the user, the database, no schema: says what to do),
// unavailable (no server answers), unsupported_version (the schema is a newer one's, or the server
// is too old), read_only (the role may not write), failed (the server would acknowledge what a
// failover loses).
[[nodiscard]] DEDUP_API Result<std::unique_ptr<StreamStore>> open_postgres(
    const std::string& url, const PostgresOptions& options = {});

enum class PostgresInit : std::uint8_t { created, upgraded, was_there };

// Makes the schema that open_postgres() needs, or brings an older one up to date. Needs the right
// to create a schema in the database, or a schema of that name that the role owns. Errors: as
// open_postgres.
[[nodiscard]] DEDUP_API Result<PostgresInit> init_postgres(const std::string& url,
                                                           const PostgresOptions& options = {});

}  // namespace dedup
