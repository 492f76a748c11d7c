// Where a store is, from its URL and the options: what libpq gets, and what the store itself reads.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "dedup/postgres_store.hpp"

namespace dedup::pg {

struct Target {
    std::vector<std::pair<std::string, std::string>> parameters;  // of libpq
    std::string schema;                                           // quoted
    PostgresOptions options;
};

// Errors: invalid_argument.
[[nodiscard]] Result<Target> parse_target(const std::string& url, PostgresOptions options);

}  // namespace dedup::pg
