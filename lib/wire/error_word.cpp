#include "wire/error_word.hpp"

#include <algorithm>

namespace dedup::wire {
namespace {

constexpr auto kLastCode = static_cast<unsigned>(Code::unavailable);

}  // namespace

std::string error_word(Code code) {
    switch (code) {
        case Code::invalid_argument:
            return "ERR";
        case Code::read_only:
            return "READONLY";
        case Code::out_of_space:
            return "OOM";
        case Code::busy:
            return "STOREBUSY";  // BUSY is the server's own
        default:
            break;
    }
    std::string word(name(code));
    std::ranges::transform(word, word.begin(), [](char byte) {
        return byte >= 'a' && byte <= 'z' ? static_cast<char>(byte - 'a' + 'A') : byte;
    });
    return word;
}

std::optional<Code> code_of_word(std::string_view word) {
    for (unsigned i = 1; i <= kLastCode; ++i) {
        if (const auto code = static_cast<Code>(i); error_word(code) == word) {
            return code;
        }
    }
    return std::nullopt;
}

}  // namespace dedup::wire
