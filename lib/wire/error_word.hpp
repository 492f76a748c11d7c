// Errors as replies of the protocol: their first word is for programs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "dedup/error.hpp"

namespace dedup::wire {

// A queue of the server's is full. Nothing was done; asking again may help.
inline constexpr std::string_view kBusyWord = "BUSY";

// Upper case; clients of Redis know some of these words and throw what is fitting.
[[nodiscard]] std::string error_word(Code code);
// The inverse; nullopt for a word that is none of these.
[[nodiscard]] std::optional<Code> code_of_word(std::string_view word);

}  // namespace dedup::wire
