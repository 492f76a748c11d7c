// What there is to say about a store after an incident: gathered in one pass over its keys, and
// shown as text, as JSON or as a page.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "dedup/store.hpp"
#include "key_counts.hpp"
#include "namespace_counts.hpp"
#include "output.hpp"
#include "record_text.hpp"

namespace dedupctl {

// What happened in an hour, as far as the heads that are still there tell.
struct HourCounts {
    std::uint64_t claimed = 0;  // and is in flight still
    std::uint64_t completed = 0;
    std::uint64_t released = 0;
    std::uint64_t repeated = 0;   // of all these: not the key's first attempt
    std::uint64_t conflicts = 0;  // requests with another fingerprint, by the hour of their claim
};

// Claims in flight, of one owner.
struct OwnerCounts {
    std::uint64_t in_flight = 0;
    std::uint64_t stuck = 0;
    std::uint64_t held = 0;
    std::int64_t oldest_ms = 0;  // when the one in flight longest was claimed
};

struct Report {
    static constexpr std::size_t kOwners = 10'000;
    static constexpr std::size_t kListed = 100;  // of each kind of key that is named
    static constexpr std::int64_t kHours = 48;
    static constexpr std::int64_t kHourMs = 3'600'000;
    // How long a key has been in its state: less than this; the last group has all others.
    struct Age {
        const char* less_than;
        std::int64_t ms;
    };
    static constexpr std::array<Age, 8> kAges = {{{"1 minute", 60'000},
                                                  {"10 minutes", 600'000},
                                                  {"1 hour", kHourMs},
                                                  {"6 hours", 6 * kHourMs},
                                                  {"1 day", 24 * kHourMs},
                                                  {"7 days", 7 * 24 * kHourMs},
                                                  {"30 days", 30 * 24 * kHourMs},
                                                  {"longer", INT64_MAX}}};

    std::string store;
    dedup::StoreStats stats;
    std::vector<dedup::SweepReport> sweeps;  // newest first
    Moment moment;                           // as of which all below is
    NamespaceCounts namespaces;
    std::map<std::string, OwnerCounts> owners;  // the first kOwners that were met
    OwnerCounts other_owners;                   // all others together
    std::array<KeyCounts, kAges.size()> ages{};
    std::array<HourCounts, kHours> hours{};  // the last is the hour that `moment` is in
    std::uint64_t stuck = 0;
    std::vector<dedup::Record> stuck_first;  // whose lease ran out first
    std::uint64_t held = 0;
    std::vector<dedup::Record> held_first;     // likewise
    std::vector<dedup::Record> working_first;  // in flight otherwise, claimed first
    std::uint64_t conflicts = 0;
    std::vector<dedup::Record> disputed;  // keys with the most conflicts
    std::uint64_t forgotten = 0;          // completions taken back; nobody has claimed them since
    std::vector<dedup::Record> forgotten_last;  // the newest first

    [[nodiscard]] KeyCounts total() const;
    // When an hour of `hours` began.
    [[nodiscard]] std::int64_t hour_ms(std::size_t i) const {
        const std::int64_t first = moment.now_ms / kHourMs - kHours + 1;
        return (first + static_cast<std::int64_t>(i)) * kHourMs;
    }
    void add(const dedup::Record& record);
    void finish();
};

[[nodiscard]] Json report_json(const Report& report);
// One page without other files, for a browser or for paper. `command` gives the command about a key
// that can be pasted into a shell.
using KeyCommand = std::function<std::string(const dedup::Record&)>;
[[nodiscard]] std::string report_html(const Report& report, const KeyCommand& command);

}  // namespace dedupctl
