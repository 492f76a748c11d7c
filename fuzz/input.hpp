// What fuzz targets share: taking an input apart, and saying what has to hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <string_view>

// The entry points that libFuzzer calls and offers.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t size_max, unsigned seed);
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t size_max);

namespace dedup::fuzz {

// Ends the run as a finding if `holds` is false. `what` may say more.
inline void require(bool holds, std::string_view what = "",
                    std::source_location where = std::source_location::current()) {
    if (!holds) {
        std::fprintf(stderr, "%s:%u: does not hold%s%.*s\n", where.file_name(),
                     static_cast<unsigned>(where.line()), what.empty() ? "" : ": ",
                     static_cast<int>(what.size()), what.data());
        std::abort();
    }
}

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

// Gives values from the front of an input, and zeros once it is used up.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(as_text(data, size)) {}
    explicit Input(std::string_view bytes) : rest_(bytes) {}

    [[nodiscard]] bool done() const { return rest_.empty(); }

    std::uint8_t byte() {
        const auto text = bytes(1);
        return text.empty() ? 0 : static_cast<std::uint8_t>(text.front());
    }

    // A number below `end`, which is at least 1; of one byte if that is enough.
    std::uint64_t below(std::uint64_t end) {
        std::uint64_t number = byte();
        for (std::uint64_t most = 255; most < end - 1 && most < UINT64_MAX / 256; most *= 256) {
            number = number * 256 + byte();
        }
        return number % end;
    }

    // Any number; the next byte tells how many bytes it takes, so that small ones are as likely.
    std::uint64_t number() {
        std::uint64_t number = 0;
        for (std::uint64_t left = below(9); left > 0; --left) {
            number = number << 8 | byte();
        }
        return number;
    }

    // At most `most` bytes.
    std::string_view bytes(std::size_t most) {
        const std::string_view taken = rest_.substr(0, most);
        rest_.remove_prefix(taken.size());
        return taken;
    }

    // A text whose length is the next byte's.
    std::string_view text() { return bytes(byte()); }

    std::string_view rest() { return bytes(rest_.size()); }

  private:
    std::string_view rest_;
};

}  // namespace dedup::fuzz
