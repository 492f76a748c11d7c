// SHA-256, as in FIPS 180-4. For names that outsiders must not be able to make collide; a few
// hundred MB a second, so not for bulk data.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace dedup {

// The digest's words, the most significant first.
[[nodiscard]] std::array<std::uint32_t, 8> sha256(std::string_view bytes);

// 64 hex digits.
[[nodiscard]] std::string sha256_hex(std::string_view bytes);

}  // namespace dedup
