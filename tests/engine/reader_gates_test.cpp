// What threads see of views may not go backwards from one to the other.

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "engine/reader_gates.hpp"

namespace dedup::test {
namespace {

TEST_CASE("gates: while a thread reads a view, no other has seen a newer one") {
    // A thread that has seen a key completed may tell another, whose gate must not show the view
    // from before.
    constexpr int kViews = 2'000;
    ReaderGates<int> gates;
    gates.publish(std::make_shared<const int>(0));
    std::atomic<int> newest_seen{0};
    std::atomic<int> backwards{0};
    std::atomic<bool> stop{false};
    std::vector<std::thread> readers;
    for (int i = 0; i < 3; ++i) {
        readers.emplace_back([&] {
            while (!stop) {
                (void)gates.view([&](const int& view) {
                    int seen = newest_seen;
                    while (seen < view && !newest_seen.compare_exchange_weak(seen, view)) {
                    }
                    std::this_thread::yield();  // with the gate held: a swap waits for this one
                    backwards += newest_seen > view;
                });
            }
        });
    }
    for (int i = 1; i <= kViews; ++i) {
        gates.publish(std::make_shared<const int>(i));
    }
    stop = true;
    for (std::thread& reader : readers) {
        reader.join();
    }
    CHECK(backwards == 0);
    CHECK(*gates.view() == kViews);
}

}  // namespace
}  // namespace dedup::test
