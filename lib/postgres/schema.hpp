// The tables, and the functions for other languages, that a store consists of.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "dedup/error.hpp"

namespace dedup::pg {

// Makes an empty store; "@" stands for the schema's name.
extern const std::string_view kSchemaSql;

// The functions, which may be made again at any time, in this order.
extern const std::string_view kBaseFunctionsSql;      // heads: reading, writing, arguments
extern const std::string_view kRestFunctionsSql;      // what has no column
extern const std::string_view kClaimFunctionsSql;     // claim, remember, lookup
extern const std::string_view kEndFunctionsSql;       // complete, release, renew
extern const std::string_view kDecisionFunctionsSql;  // what is said of claims beside their answer
extern const std::string_view kFormatSql;             // which format the schema has by now

// Whether this library can work on a schema of this format.
// Errors: unsupported_version; `schema` is its name, for people.
[[nodiscard]] Result<void> check_format(std::int64_t format, std::string_view schema);

}  // namespace dedup::pg
