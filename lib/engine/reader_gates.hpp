// Keeps readers apart from the one who changes what they read, and out of each other's way.
//
// A lock that all readers share is a cache line that they all write; two threads that look keys up
// at full speed then get hardly further than one. So each thread locks a gate of its own, and
// whoever changes something locks all gates, which happens once a group of appends. Known as a
// big-reader lock (Linux, brlock).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

#include "env/prefetch.hpp"

namespace dedup {

template <class View>
class ReaderGates {
  public:
    using ViewPtr = std::shared_ptr<const View>;

    // The view that was published last.
    [[nodiscard]] ViewPtr view() const {
        return view([](const View&) {});
    }

    // The same; runs read(view) before anybody can change anything, unless there is no view.
    template <class Read>
    [[nodiscard]] ViewPtr view(Read read) const {
        const Gate& gate = mine();
        const std::lock_guard lock(gate.mutex);
        if (gate.view) {
            read(*gate.view);
        }
        return gate.view;
    }

    // Runs `read` while nobody changes anything.
    template <class Read>
    auto shared(Read read) const {
        const std::lock_guard lock(mine().mutex);
        return read();
    }

    // Runs `change` while nobody reads. One caller at a time.
    template <class Change>
    auto exclusive(Change change) {
        std::array<std::unique_lock<std::mutex>, kGates> locks;
        for (std::size_t i = 0; i < kGates; ++i) {
            locks[i] = std::unique_lock(gates_[i].mutex);
        }
        return change();
    }

    // Shows `view` at all gates at once: whoever has seen it may tell another thread, which must
    // not see an older one at a gate of its own. One caller at a time. Changes nothing if memory
    // runs out.
    void publish(const ViewPtr& view) {
        // A reference count of its own for each gate, for the same reason as above. What the gates
        // had goes after they are open again.
        std::array<ViewPtr, kGates> counted;
        for (ViewPtr& each : counted) {
            each = view ? ViewPtr(std::make_shared<ViewPtr>(view), view.get()) : ViewPtr();
        }
        exclusive([&] {
            for (std::size_t i = 0; i < kGates; ++i) {
                std::swap(gates_[i].view, counted[i]);
            }
        });
    }

  private:
    static constexpr std::size_t kGates = 8;

    struct alignas(kCacheLineBytes) Gate {
        mutable std::mutex mutex;
        ViewPtr view;
    };

    [[nodiscard]] const Gate& mine() const {
        static std::atomic<std::size_t> threads{0};
        thread_local const std::size_t gate = threads++ % kGates;
        return gates_[gate];
    }

    std::array<Gate, kGates> gates_;
};

}  // namespace dedup
