// Turns fuzz input into the newest segment of the base store.
#pragma once

#include <cstdint>
#include <string>

#include "input.hpp"

namespace dedup::fuzz {

// `how` chooses how many of the base's frames come first, and what the input is: bytes as they are,
// bytes whose checksums are put right wherever a frame begins, or instructions for frames.
[[nodiscard]] std::string newest_segment(std::uint8_t how, Input& input);

}  // namespace dedup::fuzz
