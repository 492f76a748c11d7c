// How the longer versions of tests are asked for: by numbers in the environment.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace dedup::test {

inline std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace dedup::test
