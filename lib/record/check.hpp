// The limits on a record's values, which hold for records from callers and from files alike.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "record/codec.hpp"
#include "record/format.hpp"

namespace dedup {

// Why a record is refused. Built only when there is something wrong.
struct Problem {
    record_format::Tag field;
    std::string what;  // follows the field's name
};

// Checks all of `view` but its conflict record and the shape of its unknown fields.
[[nodiscard]] std::optional<Problem> find_problem(const RecordView& view);

// What is wrong with a conflict record, in words that follow the field's name.
[[nodiscard]] std::optional<std::string> find_conflict_problem(
    std::uint64_t count, std::span<const std::string_view> fingerprints);

// A number with thousands separated: "1,025".
[[nodiscard]] std::string grouped(std::uint64_t number);

// Bytes as a message shows them: in quotation marks, printable, and not too many.
[[nodiscard]] std::string quoted_bytes(std::string_view bytes);

// A field as messages name it: its name, or "field 0x8a" for a tag that has none.
[[nodiscard]] std::string display_name(std::uint8_t tag);

}  // namespace dedup
