#include "engine/failure.hpp"

#include <fmt/format.h>

#include <cerrno>

namespace dedup {

std::string StoreFailure::reason() const {
    const MutexLock lock(mutex_);
    return reason_;
}

Error StoreFailure::set(const Error& cause) {
    const MutexLock lock(mutex_);
    if (!failed_.exchange(true)) {  // first: what follows needs memory
        reason_ = cause.message;
    }
    return {Code::outcome_unknown,
            fmt::format("the append may or may not be durable: {}; open the store again and look",
                        cause.message),
            cause.os_error};
}

void StoreFailure::set_torn() noexcept {
    torn_ = true;
    const MutexLock lock(mutex_);
    if (!failed_.exchange(true)) {
        reason_ = kOutOfMemory;
    }
}

Error StoreFailure::out_of_memory() const noexcept {
    return {failed_ ? Code::outcome_unknown : Code::out_of_space, kOutOfMemory, ENOMEM};
}

}  // namespace dedup
