// SHA-1 (FIPS 180-4), by which Redis' clients name scripts. Nothing is kept secret or safe by it.
#pragma once

#include <string>
#include <string_view>

namespace dedup::server {

// 40 hexadecimal digits, in lower case.
[[nodiscard]] std::string sha1_hex(std::string_view bytes);

}  // namespace dedup::server
