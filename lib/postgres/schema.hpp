// The tables, and the functions for other languages, that a store consists of.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "dedup/error.hpp"

namespace dedup::pg {

// Makes an empty store; "@" stands for the schema's name.
extern const std::string_view kSchemaSql;
// The functions, which may be made again at any time.
extern const std::string_view kFunctionsSql;

// Whether this library can work on a schema of this format.
// Errors: unsupported_version; `schema` is its name, for people.
[[nodiscard]] Result<void> check_format(std::int64_t format, std::string_view schema);

}  // namespace dedup::pg
