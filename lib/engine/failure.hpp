// Whether a store still takes writes, and if not, why.
//
// Memory may run out at every allocation. Three rules make that an error like others:
//   - Whoever others wait for answers them without allocating (answered, Finally).
//   - What has been encoded and not written is forgotten, and the store goes on.
//   - From the first byte written until memory shows it, an Unfinished stands guard. Then only
//     opening the store again tells how far it came: the store takes no more writes, and writes
//     nothing more to the catalog, either.
#pragma once

#include <atomic>
#include <exception>
#include <expected>
#include <new>
#include <string>
#include <string_view>

#include "dedup/error.hpp"
#include "env/mutex.hpp"

namespace dedup {

// The whole of an error when memory has run out: so short that a string holds it in itself.
inline constexpr const char* kOutOfMemory = "out of memory";
static_assert(std::string_view(kOutOfMemory).size() < 16);

// Any thread may call any of these. Once failed, a store stays so.
class StoreFailure {
  public:
    [[nodiscard]] bool failed() const { return failed_; }
    // Failed with memory behind what is on the disk.
    [[nodiscard]] bool torn() const { return torn_; }
    // What the first failure was.
    [[nodiscard]] std::string reason() const;

    // Refuses all writes from now on. Gives the error for those whose fate is open.
    Error set(const Error& cause);
    // The same of a store that has not been opened.
    void forbid_writes() noexcept { failed_ = true; }
    // The same when memory has run out behind a write.
    void set_torn() noexcept;

    // The error of memory that has run out. Whether anything was written is unknown, if the store
    // has failed.
    [[nodiscard]] Error out_of_memory() const noexcept;

    // What `work` gives; its error if memory runs out in it.
    template <class Work>
    auto answered(Work work) const -> decltype(work()) {
        try {
            return work();
        } catch (const std::bad_alloc&) {
            return std::unexpected(out_of_memory());
        }
    }

  private:
    std::atomic<bool> failed_{false};
    std::atomic<bool> torn_{false};
    mutable Mutex mutex_;
    std::string reason_ DEDUP_GUARDED_BY(mutex_) = kOutOfMemory;  // unless it could be told
};

// Stands guard while memory does not show what is on the disk, or may be. If an exception ends its
// scope, the store fails.
class Unfinished {
  public:
    explicit Unfinished(StoreFailure& failure) noexcept
        : failure_(failure), exceptions_(std::uncaught_exceptions()) {}
    ~Unfinished() {
        if (std::uncaught_exceptions() != exceptions_) {
            failure_.set_torn();
        }
    }
    Unfinished(const Unfinished&) = delete;
    Unfinished& operator=(const Unfinished&) = delete;

  private:
    StoreFailure& failure_;
    const int exceptions_;
};

}  // namespace dedup
