// The guards of this process that live, by store, namespace and owner: what one of them has in
// flight is not left over from a former life of the process.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dedup {

class StreamStore;

// One of them, from its start to its end.
class LivingGuard {
  public:
    // `started_ms` in the time of its store.
    LivingGuard(const StreamStore& store, std::string_view ns, std::string_view owner,
                std::int64_t started_ms);
    ~LivingGuard();
    LivingGuard(const LivingGuard&) = delete;
    LivingGuard& operator=(const LivingGuard&) = delete;

    // The start of the first of those that lived when this one was started, itself included.
    [[nodiscard]] std::int64_t first_ms() const { return first_ms_; }

  private:
    struct All;
    static All& all_of_process();

    All& all_;
    const std::string name_;
    const std::int64_t started_ms_;
    std::int64_t first_ms_;
};

}  // namespace dedup
