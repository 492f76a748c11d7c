// Fixed-width integers in files: little-endian, at any alignment.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

namespace dedup {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian; a big-endian machine needs byte swaps here");

template <class T>
requires std::is_trivially_copyable_v<T>
[[nodiscard]] T load(const char* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class T>
requires std::is_trivially_copyable_v<T>
void store(char* to, const T& value) {
    std::memcpy(to, &value, sizeof value);
}

}  // namespace dedup
