// Attacks the keys of tenants: whatever the names, two scopes never share a key, and each key gives
// its scope back. Otherwise one tenant could read, or claim, another's key.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "dedup/scope.hpp"

namespace {

using dedup::ScopedKey;

void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

// The next part: a byte says how long it is.
std::string_view take(std::string_view& input) {
    if (input.empty()) {
        return {};
    }
    const std::size_t size = static_cast<unsigned char>(input.front());
    const std::string_view part = input.substr(1, size);
    input.remove_prefix(1 + part.size());
    return part;
}

ScopedKey take_scoped_key(std::string_view& input) {
    ScopedKey taken;
    taken.scope.organisation = take(input);
    taken.scope.workspace = take(input);
    const std::string_view deployment = take(input);
    if (!deployment.empty()) {
        taken.scope.deployment = deployment;
    }
    taken.scope.operation = take(input);
    taken.key = take(input);
    return taken;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view input(reinterpret_cast<const char*>(data), size);

    // As a key: what is accepted is written just so.
    if (const auto parsed = dedup::parse_scoped_key(input)) {
        const auto again = dedup::scoped_key(parsed->scope, parsed->key);
        require(again.has_value() && *again == input);
    }

    // As two scopes with a key each.
    std::string_view rest = input;
    const ScopedKey one = take_scoped_key(rest);
    const ScopedKey other = take_scoped_key(rest);
    const auto bytes = dedup::scoped_key(one.scope, one.key);
    const auto other_bytes = dedup::scoped_key(other.scope, other.key);
    if (bytes) {
        require(dedup::parse_scoped_key(*bytes) == one);
    }
    if (bytes && other_bytes) {
        require((*bytes == *other_bytes) == (one == other));
    }
    return 0;
}
