// Where a store is, from its URL and the options: what libpq gets, and what the store itself reads.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "dedup/postgres_store.hpp"

namespace dedup::pg {

// Of libpq, each with its value; a later one wins.
using Parameters = std::vector<std::pair<std::string, std::string>>;

struct Target {
    std::vector<Parameters> hosts;  // what leads to each of them, in the URL's order
    std::string schema;             // quoted
    PostgresOptions options;
};

// Errors: invalid_argument.
[[nodiscard]] Result<Target> parse_target(const std::string& url, PostgresOptions options);

}  // namespace dedup::pg
