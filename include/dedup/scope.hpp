// Keys of tenants: a scope and the tenant's own key as one key of a store.
//
// Different pairs of scope and key give different keys, whatever bytes the names have, and each key
// gives its scope back. So no tenant can name another's key, by accident or on purpose, as long as
// the program takes the scope from whoever it has authenticated, and the key from the request.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "dedup/error.hpp"

namespace dedup {

// Each part is at least one byte, of any bytes.
struct Scope {
    std::string organisation;
    std::string workspace;
    std::optional<std::string> deployment = {};
    std::string operation;

    bool operator==(const Scope&) const = default;
};

struct ScopedKey {
    Scope scope;
    std::string key;

    bool operator==(const ScopedKey&) const = default;
};

// "4:acme,4:main,-6:charge,order-17": each part as a netstring ("<length>:<bytes>,"), a "-" where
// there is no deployment, then the key as it is.
// Errors: invalid_argument (a part or the key is empty, or all of it is longer than a key may be).
[[nodiscard]] DEDUP_API Result<std::string> scoped_key(const Scope& scope, std::string_view key);

// The inverse. nullopt if scoped_key gives no such bytes.
[[nodiscard]] DEDUP_API std::optional<ScopedKey> parse_scoped_key(std::string_view bytes);

}  // namespace dedup
