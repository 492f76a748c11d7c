// Comparing what somebody says with what is secret.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "env/mutex.hpp"

namespace dedup::server {

// Takes as long whatever they have in common.
[[nodiscard]] inline bool same_secret(std::string_view given, std::string_view secret) {
    unsigned char differs = given.size() == secret.size() ? 0 : 1;
    for (std::size_t i = 0; i < given.size(); ++i) {
        const char expected = secret.empty() ? '\0' : secret[i % secret.size()];
        differs =
            static_cast<unsigned char>(differs | static_cast<unsigned char>(given[i] ^ expected));
    }
    return differs == 0;
}

// One that can be replaced. Any thread.
class Secret {
  public:
    // Empty: none is needed, and none ever will be.
    explicit Secret(std::string secret) : needed_(!secret.empty()), secret_(std::move(secret)) {}
    [[nodiscard]] bool is_needed() const { return needed_; }
    [[nodiscard]] bool is(std::string_view said) const DEDUP_EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        return needed_ && same_secret(said, secret_);
    }
    void replace(std::string_view secret) DEDUP_EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        secret_ = secret;
    }

  private:
    const bool needed_;
    mutable Mutex mutex_;
    std::string secret_ DEDUP_GUARDED_BY(mutex_);
};

}  // namespace dedup::server
