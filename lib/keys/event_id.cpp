#include "dedup/event_id.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "dedup/record.hpp"
#include "record/check.hpp"
#include "record/invalid.hpp"
#include "record/sha256.hpp"

namespace dedup {
namespace {

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool same_name(std::string_view a, std::string_view b) {
    return std::ranges::equal(a, b, {}, lower, lower);
}

// `id`, if it is a valid key; `from` says where it was.
Result<std::string> checked(std::string id, std::string_view from) {
    if (const Result<void> valid = check_key(id); !valid) {
        return invalid(fmt::format("event id from {}: {}", from, valid.error().message));
    }
    return id;
}

}  // namespace

Result<std::string> event_id_from_header(std::span<const Header> headers, std::string_view name) {
    std::optional<std::string_view> found;
    for (const Header& header : headers) {
        if (!same_name(header.name, name)) {
            continue;
        }
        if (found && *found != header.value) {
            return invalid(fmt::format("event id: header {} is there twice, as {} and {}",
                                       quoted_bytes(name), quoted_bytes(*found),
                                       quoted_bytes(header.value)));
        }
        found = header.value;
    }
    if (!found) {
        return invalid(fmt::format("event id: there is no header {}", quoted_bytes(name)));
    }
    return checked(std::string(*found), fmt::format("header {}", quoted_bytes(name)));
}

Result<std::string> event_id_from_position(std::string_view topic, std::uint32_t partition,
                                           std::uint64_t offset) {
    return checked(fmt::format("{}-{}-{}", topic, partition, offset), "the position");
}

Result<std::string> event_id_from_payload(std::string_view payload, const JsonPointer& pointer) {
    std::string id;
    if (!pointer.find(payload, id)) {
        return invalid(
            fmt::format("event id: the payload of {} bytes is not JSON with a value at the pointer",
                        payload.size()));
    }
    return checked(std::move(id), "the payload");
}

std::string event_id_from_content(std::string_view content) {
    return "sha256-" + sha256_hex(content);
}

}  // namespace dedup
