#pragma once

#include <string>
#include <string_view>

namespace dedupctl {

// The first line of the file, so that an editor's newline is no part of it, nor a CR
// before it. Throws a Failure that
// names `option`.
[[nodiscard]] std::string read_secret(const std::string& path, std::string_view option);

}  // namespace dedupctl
