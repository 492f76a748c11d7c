// Sweeps that clients have begun, for those who ask how far one is, or want it to end.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "env/mutex.hpp"

namespace dedup::server {

// For any thread.
class SweepWatch {
  public:
    struct Progress {
        std::uint64_t done = 0;
        std::uint64_t total = 0;
    };

    // Until end(id): the token that ends the sweep early. Ids are the clients' own choice; of two
    // sweeps with one, the later is meant.
    [[nodiscard]] std::stop_source begin(const std::string& id) DEDUP_EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        return sweeps_.insert_or_assign(id, Entry{}).first->second.stop;
    }
    void note(const std::string& id, Progress progress) DEDUP_EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        if (const auto found = sweeps_.find(id); found != sweeps_.end()) {
            found->second.progress = progress;
        }
    }
    void end(const std::string& id) DEDUP_EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        sweeps_.erase(id);
    }
    // nullopt: no such sweep runs.
    [[nodiscard]] std::optional<Progress> look(std::string_view id, bool stop)
        DEDUP_EXCLUDES(mutex_) {
        std::optional<std::stop_source> stopped;
        std::optional<Progress> progress;
        {
            const MutexLock lock(mutex_);
            if (const auto found = sweeps_.find(id); found != sweeps_.end()) {
                progress = found->second.progress;
                if (stop) {
                    stopped = found->second.stop;
                }
            }
        }
        if (stopped) {
            stopped->request_stop();
        }
        return progress;
    }

  private:
    struct Entry {
        std::stop_source stop = {};
        Progress progress = {};
    };

    Mutex mutex_;
    std::map<std::string, Entry, std::less<>> sweeps_ DEDUP_GUARDED_BY(mutex_);
};

}  // namespace dedup::server
