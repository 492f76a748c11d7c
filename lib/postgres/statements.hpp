// Every statement that a store sends. The schema's quoted name is all that is put into their texts.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "dedup/error.hpp"
#include "postgres/connection.hpp"

namespace dedup::pg {

// Which schema this library makes and understands.
inline constexpr std::int64_t kFormat = 3;

// Sequences that one block has.
inline constexpr std::uint64_t kBlockSequences = 65'536;
inline constexpr std::int64_t kBlockMax = (std::int64_t{1} << 47U) - 1;  // as in schema.cpp

// The name as SQL has it. Errors: invalid_argument.
[[nodiscard]] Result<std::string> quote_schema(std::string_view name);

// `text` with the schema's quoted name for each "@".
[[nodiscard]] std::string in_schema(std::string_view text, std::string_view quoted_schema);

// A head's columns, in the order in which they are written and read.
enum class At : std::uint8_t {
    bucket,
    ns,
    key,
    sequence,
    fence,
    state,
    attempt,
    timestamp_ms,
    expires_ms,
    expiry_slot,
    ttl_ms,
    lease_until_ms,
    owner,
    fingerprint,
    event_id,
    receipt,
    metadata,
    rest,
    expected,  // of updates only, and no column of the table
};

// An append sends an array for each.
struct Column {
    std::string_view name;
    Type type;
    // Each row has a value of its own. Of the other columns a batch that has one value in all rows
    // sends that once.
    bool varies = false;
    bool read = true;  // back into a record
};
inline constexpr std::array<Column, 19> kColumns = {{
    {"bucket", Type::int2, true, false},
    {"ns", Type::text},
    {"key", Type::bytea, true},
    {"sequence", Type::int8, true},
    {"fence", Type::int8, true},
    {"state", Type::int2},
    {"attempt", Type::int8},
    {"timestamp_ms", Type::int8},
    {"expires_ms", Type::int8},
    {"expiry_slot", Type::int8, false, false},
    {"ttl_ms", Type::int8},
    {"lease_until_ms", Type::int8},
    {"owner", Type::bytea},
    {"fingerprint", Type::bytea},
    {"event_id", Type::bytea},
    {"receipt", Type::bytea, true},
    {"metadata", Type::bytea},
    {"rest", Type::bytea},
    {"expected", Type::int8, true, false},
}};

// Where a column stands in what is read. kReadColumns: behind all of them.
[[nodiscard]] constexpr int read_place(At column) {
    int place = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(column); ++i) {
        place += kColumns.at(i).read ? 1 : 0;
    }
    return place;
}
inline constexpr int kReadColumns = read_place(At::expected);

// A statement about any number of rows, and one about a single row with the same parameters: the
// server prepares an unnest of many arrays for longer than all else takes it.
struct BatchStatement {
    Statement many;
    Statement one;

    [[nodiscard]] const Statement* of(std::size_t rows) const { return rows == 1 ? &one : &many; }
};

struct Statements {
    // `local`: as PostgresDurability::local. A statement waits for a lock of somebody else's for
    // `lock_wait` at most: that one may be a transaction of an application's, which stays open.
    Statements(const std::string& schema, bool local, std::chrono::milliseconds lock_wait);

    // Transactions and settings.
    Statement begin;
    Statement commit;
    Statement rollback;
    Statement local_settings;
    Statement session_settings;
    Statement hurry;  // for this transaction: hardly wait for locks

    // What a connection must be.
    Statement prove;
    Statement meta;

    // Appending.
    BatchStatement insert;
    BatchStatement update;
    Statement sequences;
    Statement block;
    Statement keep_block;  // behind `block`: its commit makes that durable
    Statement clock;       // the server's, in milliseconds
    Statement raise_time;  // where it is not beyond $2 already
    Statement saw_time;
    Statement set_clock;

    // Reading.
    BatchStatement heads;
    Statement scan;
    Statement count_states;
    Statement sizes;

    // Sweeping.
    Statement lock_sweep;
    Statement batch_limits;
    // Each for where the one before does not do: a row is held by somebody's transaction; rows have
    // no ctid that a query can use; the server skips none that are held. The last has a parameter
    // more, of rows that it passes over.
    std::array<Statement, 4> remove_expired;
    Statement oldest;  // the keys of what is to be evicted, as arrays
    std::array<Statement, 2> evict;
    Statement would_remove;  // how many
    Statement would_tell;    // those of them that nobody answered
    Statement retained;
    Statement next_expiry;
    Statement usage;
    Statement raise_floor;
    Statement any_expired;
    Statement put_report;
    Statement trim_reports;
    Statement swept;
    Statement reports;
};

}  // namespace dedup::pg
