#include "dedup/store.hpp"

#include <utility>

#include "contract/waiters.hpp"

namespace dedup {

StreamStore::StreamStore(Clock clock, std::chrono::milliseconds grace, StoreClock::Jumps jumps)
    : time_(std::move(clock), grace, jumps), waiters_(std::make_shared<Waiters>()) {}

StreamStore::StreamStore(StreamStore& inner)
    : time_([&inner] { return inner.now_ms(); }, inner.grace(), StoreClock::Jumps::ignore),
      waiters_(inner.waiters_) {}

}  // namespace dedup
