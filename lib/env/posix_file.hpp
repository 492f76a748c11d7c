// A file of the system's.
#pragma once

#include <memory>

#include "env/descriptor.hpp"
#include "env/env.hpp"

namespace dedup {

// `path` is what errors name.
[[nodiscard]] std::unique_ptr<File> posix_file(Descriptor fd, Path path);

}  // namespace dedup
