// The tables, and the functions for other languages, that a store consists of.
#pragma once

#include <string>
#include <string_view>

namespace dedup::pg {

// Makes an empty store; "@" stands for the schema's name.
extern const std::string_view kSchemaSql;
// The functions, which may be made again at any time.
extern const std::string_view kFunctionsSql;

}  // namespace dedup::pg
