#pragma once

#include <expected>
#include <memory>
#include <string>
#include <utility>

#include "cache/helpers.hpp"
#include "dedup/guard.hpp"

namespace dedup::test {

using Handled = std::expected<std::string, Failure>;

inline std::unique_ptr<Guard> guard_on(StreamStore& store, GuardOptions options = {}) {
    return must(Guard::start(store, std::move(options)));
}

}  // namespace dedup::test
