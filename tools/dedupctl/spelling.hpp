// What somebody may have meant who misspelt a word.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dedupctl {

// The one of `words` that is most like `word`; empty if none is like it.
[[nodiscard]] std::string_view closest(std::string_view word,
                                       const std::vector<std::string_view>& words);

}  // namespace dedupctl
