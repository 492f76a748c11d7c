// A record as a line of an export: every field, exactly, and nothing that is not there.
//
// Texts are bytes. One that is UTF-8 is the member of its name, a JSON string; any other is in
// base64 the member with `_base64` behind its name. Never both. Empty texts and numbers that are 0
// are left out, except that a receipt is there, even if empty, exactly if the record is completed.
#pragma once

#include <expected>
#include <functional>
#include <string>
#include <string_view>

#include "dedup/record.hpp"
#include "output.hpp"

namespace dedupctl {

[[nodiscard]] Json record_to_json(const dedup::Record& record);

// The inverse; strict. The error says what is wrong with the object. `members` is the number of
// names that were read, nested ones included: more than there are means that one came twice.
[[nodiscard]] std::expected<dedup::Record, std::string> record_from_json(const Json& object,
                                                                         std::size_t members);

// Parses one JSON text and counts the names in it. The error says what is wrong, and at which byte.
struct ParsedJson {
    Json value;
    std::size_t members = 0;
};
[[nodiscard]] std::expected<ParsedJson, std::string> parse_json(std::string_view text);

// As parse_json; `keep` gets each part as it is read, as Json::parse has it, and says whether it
// becomes part of the value.
using KeepPart = std::function<bool(int depth, Json::parse_event_t event, Json& part)>;
[[nodiscard]] std::expected<Json, std::string> parse_json(std::string_view text,
                                                          const KeepPart& keep);

}  // namespace dedupctl
