// Whether the store takes what is appended, as the server's log has it.
#pragma once

#include <optional>
#include <span>
#include <utility>

#include "dedup/error.hpp"
#include "env/mutex.hpp"

namespace dedup::server {

// For any thread.
class StoreWatch {
  public:
    struct News {
        std::optional<Error> failed = {};  // it began to refuse, and how
        bool recovered = false;            // and takes all that it is given since
    };

    // What an append came to.
    template <class T>
    void saw(std::span<const Result<T>> landed) DEDUP_EXCLUDES(mutex_) {
        for (const Result<T>& one : landed) {
            if (!one && is_of_store(one.error().code)) {
                const MutexLock lock(mutex_);
                if (!failed_) {
                    failed_ = one.error();
                }
                refuses_ = true;
                return;
            }
        }
        const MutexLock lock(mutex_);
        refuses_ = false;
    }
    // Since the last call. Failures between two that take turns with successes are told once.
    [[nodiscard]] News take() DEDUP_EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        News news;
        if (!told_) {
            news.failed = std::exchange(failed_, std::nullopt);
            told_ = news.failed.has_value();
        }
        if (told_ && !refuses_) {
            news.recovered = true;
            told_ = false;
            failed_.reset();
        }
        return news;
    }

  private:
    // Not of what was asked.
    static bool is_of_store(Code code) {
        return code == Code::io || code == Code::out_of_space || code == Code::corruption ||
               code == Code::read_only || code == Code::closed || code == Code::failed ||
               code == Code::outcome_unknown || code == Code::unavailable;
    }

    Mutex mutex_;
    std::optional<Error> failed_ DEDUP_GUARDED_BY(mutex_);  // the first since it was told
    bool refuses_ DEDUP_GUARDED_BY(mutex_) = false;
    bool told_ DEDUP_GUARDED_BY(mutex_) = false;  // that it refuses
};

}  // namespace dedup::server
