// Asking what had become of work whose claim nobody answered, before anybody does it again.
//
//     .reconcile = [&](std::string_view key, const dedup::Previous& previous) {
//         const bool may_arrive = store.now_ms() <= previous.ended_ms + kRequestLifeMs;
//         const auto payment = bank.find(key);  // with a bound of its own: the key waits for it
//         return !payment      ? may_arrive ? dedup::Finding::unknown("it may be under way")
//                                           : dedup::Finding::not_done()
//                : payment->ok ? dedup::Finding::done(payment->receipt)
//                              : dedup::Finding::unknown("the bank has it pending");
//     }
//
// It must only look: several may ask at the same time, and again after a crash. That "not done" is
// right, and stays right, is its business: whatever the first one had sent must not arrive later.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "dedup/cache.hpp"

namespace dedup {

// One that was made by default lets nobody work.
struct Finding {
    enum class What : std::uint8_t {
        unknown = 0,   // the key waits for a decision
        not_done = 1,  // the work runs again
        done = 2,      // the key is completed
    };

    What what = What::unknown;
    std::string text;  // done: the receipt; else why, for people

    [[nodiscard]] static Finding done(std::string receipt) {
        return {What::done, std::move(receipt)};
    }
    [[nodiscard]] static Finding not_done(std::string why = {}) {
        return {What::not_done, std::move(why)};
    }
    [[nodiscard]] static Finding unknown(std::string why = {}) {
        return {What::unknown, std::move(why)};
    }
};

// Gets the key and what is known of its last claim, above all the note. An exception counts as
// unknown.
using Reconcile = std::function<Finding(std::string_view key, const Previous& previous)>;

}  // namespace dedup
