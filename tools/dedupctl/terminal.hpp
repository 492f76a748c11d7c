// What a terminal is like.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace dedupctl {

struct TerminalSize {
    std::size_t columns = 80;
    std::size_t rows = 24;
    bool operator==(const TerminalSize&) const = default;
};

// Whether `fd` is a terminal on which text can be drawn over: not with TERM=dumb.
[[nodiscard]] bool can_draw_on(int fd);

// As it is now: people resize. One that does not say has the default size.
[[nodiscard]] TerminalSize terminal_size(int fd);

// The first `columns` columns of UTF-8 text.
[[nodiscard]] std::string cut_to(std::string_view text, std::size_t columns);

}  // namespace dedupctl
