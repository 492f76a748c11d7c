#include "dedup/scope.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "dedup/record.hpp"
#include "keys/netstring.hpp"
#include "record/check.hpp"
#include "record/invalid.hpp"

namespace dedup {
namespace {

// A netstring begins with a digit, so this is none.
constexpr char kNoDeployment = '-';

}  // namespace

Result<std::string> scoped_key(const Scope& scope, std::string_view key) {
    const std::array<std::pair<std::string_view, std::string_view>, 5> parts = {{
        {"organisation", scope.organisation},
        {"workspace", scope.workspace},
        {"deployment", scope.deployment ? std::string_view(*scope.deployment) : "-"},
        {"operation", scope.operation},
        {"key", key},
    }};
    for (const auto& [name, part] : parts) {
        if (part.empty()) {
            return invalid(fmt::format("{} is empty; it needs at least 1 byte", name));
        }
    }
    std::string bytes;
    append_netstring(bytes, scope.organisation);
    append_netstring(bytes, scope.workspace);
    if (scope.deployment) {
        append_netstring(bytes, *scope.deployment);
    } else {
        bytes += kNoDeployment;
    }
    append_netstring(bytes, scope.operation);
    bytes += key;
    if (bytes.size() > kKeyBytesMax) {
        return invalid(fmt::format("scope and key take {} bytes together; at most {} are allowed",
                                   grouped(bytes.size()), grouped(kKeyBytesMax)));
    }
    return bytes;
}

std::optional<ScopedKey> parse_scoped_key(std::string_view bytes) {
    if (bytes.size() > kKeyBytesMax) {
        return std::nullopt;
    }
    ScopedKey parsed;
    const auto take = [&bytes](std::string& part) {
        const auto taken = take_netstring(bytes);
        part = taken.value_or("");
        return !part.empty();
    };
    if (!take(parsed.scope.organisation) || !take(parsed.scope.workspace)) {
        return std::nullopt;
    }
    if (bytes.starts_with(kNoDeployment)) {
        bytes.remove_prefix(1);
    } else if (!take(parsed.scope.deployment.emplace())) {
        return std::nullopt;
    }
    if (!take(parsed.scope.operation) || bytes.empty()) {
        return std::nullopt;
    }
    parsed.key = bytes;
    return parsed;
}

}  // namespace dedup
