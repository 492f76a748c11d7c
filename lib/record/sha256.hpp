// SHA-256, as in FIPS 180-4. For names that outsiders must not be able to make collide; a few
// hundred MB a second, so not for bulk data.
#pragma once

#include <string>
#include <string_view>

namespace dedup {

// 64 hex digits.
[[nodiscard]] std::string sha256_hex(std::string_view bytes);

}  // namespace dedup
