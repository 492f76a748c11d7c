// Every statement that a store sends. The schema's quoted name is all that is put into their texts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "dedup/error.hpp"
#include "postgres/connection.hpp"

namespace dedup::pg {

// Which schema this library makes and understands.
inline constexpr std::int64_t kFormat = 1;

// Sequences that one block has.
inline constexpr std::uint64_t kBlockSequences = 65'536;

// The name as SQL has it. Errors: invalid_argument.
[[nodiscard]] Result<std::string> quote_schema(std::string_view name);

// `text` with the schema's quoted name for each "@".
[[nodiscard]] std::string in_schema(std::string_view text, std::string_view quoted_schema);

struct Statements {
    // `local`: as PostgresDurability::local.
    Statements(const std::string& schema, bool local);

    // Transactions and settings.
    Statement begin;
    Statement commit;
    Statement rollback;
    Statement local_settings;
    Statement session_settings;

    // What a connection must be.
    Statement prove;
    Statement meta;

    // Appending.
    Statement insert;
    Statement update;
    Statement sequences;
    Statement block;
    Statement saw_time;
    Statement clock;
    Statement set_clock;

    // Reading.
    Statement heads;
    Statement scan;
    Statement count_states;
    Statement sizes;

    // Sweeping.
    Statement lock_sweep;
    Statement remove_expired;
    Statement remove_oldest;
    Statement would_remove;
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
