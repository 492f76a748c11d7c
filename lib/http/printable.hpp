#pragma once

namespace dedup::http {

[[nodiscard]] constexpr bool is_printable(char c) {
    return c >= 0x20 && c <= 0x7e;
}

}  // namespace dedup::http
