#include "terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace dedupctl {

bool can_draw_on(int fd) {
    const char* terminal = std::getenv("TERM");
    return ::isatty(fd) == 1 && (terminal == nullptr || std::string_view(terminal) != "dumb");
}

TerminalSize terminal_size(int fd) {
    struct winsize size {};
    TerminalSize found;
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 && size.ws_row != 0) {
        found = {size.ws_col, size.ws_row};
    }
    return found;
}

std::string cut_to(std::string_view text, std::size_t columns) {
    std::size_t at = 0;
    while (at < text.size()) {
        const bool starts = (static_cast<unsigned char>(text[at]) & 0xc0U) != 0x80U;
        if (starts && columns-- == 0) {
            break;
        }
        ++at;
    }
    return std::string(text.substr(0, at));
}

}  // namespace dedupctl
