// Has a planted bug. That it is found shows that the harness finds bugs: that the code is
// instrumented, that inputs are grown towards new branches, and that the sanitizer ends the run.
#include <memory>

#include "input.hpp"

// A length that is trusted, behind a magic number that nobody guesses at once.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    dedup::fuzz::Input input(data, size);
    for (const char expected : {'D', 'F', 'R', 'M'}) {
        if (input.byte() != static_cast<std::uint8_t>(expected)) {
            return 0;
        }
    }
    const std::size_t length = input.byte();
    const std::string_view body = input.rest();
    const auto copy = std::make_unique<volatile char[]>(body.size() + 1);
    for (std::size_t i = 0; i < length; ++i) {
        copy[i] = 'x';  // beyond the end if the length is a lie
    }
    return 0;
}
