#include <algorithm>
#include <chrono>

#include "dedup/store.hpp"

namespace dedup {

std::int64_t system_now_ms() {
    using namespace std::chrono;
    const auto since_1970 = system_clock::now().time_since_epoch();
    return std::max<std::int64_t>(0, duration_cast<milliseconds>(since_1970).count());
}

}  // namespace dedup
