#include "common/bench_keys.hpp"

#include <string_view>

namespace dedupctl {

std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111eb;
    return x ^ (x >> 31U);
}

void BenchKeys::write(std::uint64_t index, char* out) const {
    constexpr std::string_view kDigits = "0123456789abcdef";
    const std::uint64_t high = mix(seed_ + 2 * index);
    const std::uint64_t low = mix(seed_ + 2 * index + 1);
    unsigned nibble = 0;
    for (std::size_t i = 0; i < kKeyBytes; ++i) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            out[i] = '-';
            continue;
        }
        const std::uint64_t half = nibble < 16 ? high : low;
        out[i] = kDigits[half >> (60U - 4U * (nibble % 16U)) & 15U];
        ++nibble;
    }
}

std::string BenchKeys::at(std::uint64_t index) const {
    std::string key(kKeyBytes, '\0');
    write(index, key.data());
    return key;
}

}  // namespace dedupctl
