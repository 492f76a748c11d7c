#include "guard/living_guard.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "env/process.hpp"

namespace dedup {

struct LivingGuard::All {
    const ProcessMark mark;
    std::mutex mutex;
    std::multimap<std::string, std::int64_t> started_ms;  // by name
};

// Never destroyed, as a guard may be in a global variable. A forked child begins with none, and
// without a mutex that a thread of its parent may have held.
LivingGuard::All& LivingGuard::all_of_process() {
    static std::atomic<All*> current{nullptr};
    All* all = current.load();
    if (all != nullptr && !all->mark.inherited()) {
        return *all;
    }
    auto made = std::make_unique<All>();
    if (!current.compare_exchange_strong(all, made.get())) {
        return *all;  // another thread was faster
    }
    if (all != nullptr) {
        leave_to_parent(all);
    }
    return *made.release();
}

namespace {

std::string name_of(const StreamStore& store, std::string_view ns, std::string_view owner) {
    std::string name = std::to_string(reinterpret_cast<std::uintptr_t>(&store));
    return name.append(1, '\0').append(ns).append(1, '\0').append(owner);
}

}  // namespace

LivingGuard::LivingGuard(const StreamStore& store, std::string_view ns, std::string_view owner,
                         std::int64_t started_ms)
    : all_(all_of_process()),
      name_(name_of(store, ns, owner)),
      started_ms_(started_ms),
      first_ms_(started_ms) {
    const std::lock_guard lock(all_.mutex);
    all_.started_ms.emplace(name_, started_ms_);
    const auto [first, end] = all_.started_ms.equal_range(name_);
    for (auto each = first; each != end; ++each) {
        first_ms_ = std::min(first_ms_, each->second);
    }
}

LivingGuard::~LivingGuard() {
    if (all_.mark.inherited()) {
        return;
    }
    const std::lock_guard lock(all_.mutex);
    const auto [first, end] = all_.started_ms.equal_range(name_);
    all_.started_ms.erase(
        std::find_if(first, end, [this](const auto& each) { return each.second == started_ms_; }));
}

}  // namespace dedup
