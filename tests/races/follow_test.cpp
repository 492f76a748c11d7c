// A process that reads beside one that writes, seals, sweeps and compacts.
//
// The writer works in rounds, each one append: it sets every counter to the number of the round,
// and begins a brief stream, which expires some rounds later. Now and then it sweeps. The clock
// is the round. So a reader can tell what it has to see: it gets no error; a counter never goes
// back, in heads, histories and scans; once a round has been acknowledged, or any part of a later
// one seen, it is there; and a brief stream is there until it expires, and never again once it has
// been found swept.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "support/child_process.hpp"
#include "support/environment.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr std::uint64_t kCounters = 5;
constexpr std::uint64_t kLasting = 40;  // streams that are written once and stay
constexpr std::uint64_t kSweepEvery = 10;
constexpr std::uint64_t kBriefRounds = 25;
constexpr std::int64_t kRoundMs = 1'000;

std::int64_t time_of(std::uint64_t round) {
    return 1'700'000'000'000 + static_cast<std::int64_t>(round) * kRoundMs;
}

struct Progress {
    std::atomic<std::uint64_t> round{0};         // begun
    std::atomic<std::uint64_t> acknowledged{0};  // rounds
    std::atomic<std::uint64_t> swept{0};         // the round at the end of whose sweep this was set
    std::atomic<std::uint64_t> changes{0};       // odd while the writer changes something
    std::atomic<bool> done{false};
    std::atomic<std::uint64_t> given_up{0};     // segments
    std::atomic<std::uint64_t> whole_scans{0};  // during which nothing changed
    std::atomic<std::uint64_t> looks{0};
    std::atomic<std::uint64_t> seen_swept{0};
    std::array<char, 500> wrong{};
};

int fail(Progress& progress, const std::string& what) {
    what.copy(progress.wrong.data(), progress.wrong.size() - 1);
    return 1;
}

OpenOptions options_of(Progress& progress) {
    OpenOptions options = small_segments();
    options.clock = [&progress] { return time_of(progress.round); };
    return options;
}

std::string counter(std::uint64_t i) {
    return "counter-" + std::to_string(i);
}
std::string brief(std::uint64_t round) {
    return "brief-" + std::to_string(round);
}
std::string lasting(std::uint64_t i) {
    return "lasting-" + std::to_string(i);
}

// The number in front of a receipt. What follows fills segments.
std::uint64_t number_of(const Record& record) {
    return std::strtoull(record.receipt->c_str(), nullptr, 10);
}
Record record_of(const std::string& key, std::uint64_t number, std::size_t padding) {
    Record record = completed_record(key, std::to_string(number) + std::string(padding, '.'));
    record.timestamp_ms = time_of(number);
    return record;
}

class Writer {
  public:
    explicit Writer(Progress& progress) : progress_(progress) {}

    int run(const std::filesystem::path& path, std::uint64_t rounds) {
        auto store = open(path, options_of(progress_));
        if (!store) {
            return fail(progress_, store.error().message);
        }
        for (std::uint64_t round = 1; round <= rounds; ++round) {
            if (!write(**store, round) || (round % kSweepEvery == 0 && !sweep(**store, round))) {
                return 1;
            }
            if (round % 50 == 0) {  // gives the reader time to see a store that stands still
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            }
        }
        return 0;
    }

  private:
    bool write(StreamStore& store, std::uint64_t round) {
        progress_.round = round;
        std::vector<Append> batch;
        for (std::uint64_t i = 0; i < kCounters; ++i) {
            batch.push_back({heads_[i], record_of(counter(i), round, 600)});
        }
        batch.push_back({0, record_of(brief(round), round, 3'000)});
        batch.back().record.expires_at_ms = time_of(round + kBriefRounds) - store.grace().count();
        if (round <= kLasting) {
            batch.push_back({0, record_of(lasting(round), round, 300)});
        }
        ++progress_.changes;
        const auto results = store.append(batch);
        ++progress_.changes;
        for (std::size_t i = 0; i < results.size(); ++i) {
            if (!results[i]) {
                fail(progress_, "append: " + results[i].error().message);
                return false;
            }
            if (i < kCounters) {
                heads_[i] = *results[i];
            }
        }
        progress_.acknowledged = round;
        return true;
    }

    bool sweep(StreamStore& store, std::uint64_t round) {
        ++progress_.changes;
        const auto report = store.sweep();
        ++progress_.changes;
        if (!report) {
            fail(progress_, "sweep: " + report.error().message);
            return false;
        }
        progress_.swept = round;
        progress_.given_up += report->segments_dropped + report->segments_compacted;
        return true;
    }

    Progress& progress_;
    std::array<std::uint64_t, kCounters> heads_{};
};

class Reader {
  public:
    explicit Reader(Progress& progress) : progress_(progress) {}

    int run(const std::filesystem::path& path, bool reopens) {
        while (progress_.acknowledged == 0) {
            if (progress_.done) {
                return 0;
            }
        }
        OpenOptions options = options_of(progress_);
        options.read_only = true;
        for (bool last = false; !last;) {
            auto store = open(path, options);
            if (!store) {
                return fail(progress_, "open: " + store.error().message);
            }
            const std::uint64_t looks = reopens ? 3 : UINT64_MAX;
            for (std::uint64_t i = 0; i < looks && !last; ++i) {
                last = progress_.done;
                if (!look(**store)) {
                    return 1;
                }
            }
        }
        return 0;
    }

  private:
    bool wrong(const std::string& what) {
        fail(progress_, what);
        return false;
    }

    bool look(StreamStore& store) {
        ++progress_.looks;
        switch (random_() % 8) {
            case 0:
                return read_history(store, random_() % kCounters);
            case 1:
                return scan(store);
            case 2:
            case 3:
                return read_briefs(store);
            default:
                return read_counters(store);
        }
    }

    // Whatever the store shows from here on includes this round.
    std::uint64_t at_least() {
        seen_ = std::max<std::uint64_t>(seen_, progress_.acknowledged);
        return seen_;
    }

    // A counter has been seen at `number`: of that round, and so are all before it in its append.
    bool note(std::uint64_t i, std::uint64_t number, std::uint64_t least, const char* where) {
        if (number < least || number < counters_[i]) {
            return wrong(std::string(where) + ": " + counter(i) + " is " + std::to_string(number) +
                         ", not " + std::to_string(std::max(least, counters_[i])) + " or later");
        }
        for (std::uint64_t before = 0; before <= i; ++before) {
            counters_[before] = std::max(counters_[before], number);
        }
        seen_ = std::max(seen_, number - 1);
        return true;
    }

    bool read_counters(StreamStore& store) {
        const std::uint64_t least = at_least();
        for (const std::uint64_t i : {random_() % kCounters, random_() % kCounters}) {
            const auto head = store.head({"test", counter(i)});
            if (!head || !*head) {
                return wrong(counter(i) + (head ? " is gone" : ": " + head.error().message));
            }
            if (!note(i, number_of(**head), least, "head")) {
                return false;
            }
        }
        const std::uint64_t i = 1 + random_() % kLasting;
        const auto head = store.head({"test", lasting(i)});
        if (!head || (i <= least && !*head)) {
            return wrong(lasting(i) + (head ? " is gone" : ": " + head.error().message));
        }
        return true;
    }

    // Ascending, up to now; sweeps may have taken some.
    bool read_history(StreamStore& store, std::uint64_t i) {
        const std::uint64_t least = at_least();
        const auto history = store.history({"test", counter(i)});
        if (!history || history->empty()) {
            return wrong("history of " + counter(i) + ": " +
                         (history ? "none" : history.error().message));
        }
        std::uint64_t before = 0;
        std::uint64_t sequence = 0;
        for (const Version& version : *history) {
            const std::uint64_t number = number_of(version.record);
            if (before != 0 && (number <= before || version.record.sequence <= sequence)) {
                return wrong("history of " + counter(i) + " has " + std::to_string(number) +
                             " after " + std::to_string(before));
            }
            before = number;
            sequence = version.record.sequence;
        }
        return note(i, before, least, "history");
    }

    // Those that are about to expire, and some that have long been swept.
    bool read_briefs(StreamStore& store) {
        const std::uint64_t least = at_least();
        const std::uint64_t swept = progress_.swept;
        for (const std::uint64_t back : {random_() % (2 * kBriefRounds), random_() % 1'000}) {
            const std::uint64_t round = least > back ? least - back : 1;
            const auto head = store.head({"test", brief(round)});
            if (!head) {
                return wrong(brief(round) + ": " + head.error().message);
            }
            if (!note_brief(round, head->has_value(), swept)) {
                return false;
            }
        }
        return true;
    }

    // A sweep at `now` takes what has expired before; the round of this test is that of the clock.
    bool note_brief(std::uint64_t round, bool there, std::uint64_t swept) {
        const std::uint64_t now = progress_.round;
        if (there && round + kBriefRounds < swept) {
            return wrong(brief(round) + " is there after the sweep of " + std::to_string(swept));
        }
        if (there && gone_.contains(round)) {
            return wrong(brief(round) + " is there again");
        }
        if (!there && round + kBriefRounds >= now) {
            return wrong(brief(round) + " is gone in round " + std::to_string(now));
        }
        if (!there) {
            progress_.seen_swept += gone_.emplace(round, now).second ? 1U : 0U;
        }
        return true;
    }

    bool scan(StreamStore& store) {
        const std::uint64_t least = at_least();
        const std::uint64_t swept = progress_.swept;
        const std::uint64_t changes = progress_.changes;
        std::map<std::string, std::uint64_t> found;  // how often
        const auto before = counters_;
        ScanOptions options;
        options.heads_max = 1 + random_() % 60;
        do {
            const auto page = store.scan(options);
            if (!page) {
                return wrong("scan: " + page.error().message);
            }
            for (const Version& head : page->heads) {
                ++found[head.record.key];
                if (!check_scanned(head.record, before, least, swept)) {
                    return false;
                }
            }
            options.cursor = page->cursor;
        } while (!options.cursor.empty());
        const bool still = changes % 2 == 0 && changes == progress_.changes;
        return !still || check_whole(found, least);
    }

    bool check_scanned(const Record& record, const std::array<std::uint64_t, kCounters>& before,
                       std::uint64_t least, std::uint64_t swept) {
        const std::uint64_t number = number_of(record);
        if (record.key.starts_with("brief-")) {
            return record.key == brief(number)
                       ? note_brief(number, true, swept)
                       : wrong("scan: " + record.key + " has the record of " + brief(number));
        }
        for (std::uint64_t i = 0; i < kCounters; ++i) {
            if (record.key == counter(i) && number < std::max(least, before[i])) {
                return wrong("scan: " + record.key + " is " + std::to_string(number));
            }
        }
        return true;
    }

    // The writer did nothing meanwhile, so each stream was given just once.
    bool check_whole(const std::map<std::string, std::uint64_t>& found, std::uint64_t least) {
        ++progress_.whole_scans;
        std::vector<std::string> expected;
        for (std::uint64_t i = 0; i < kCounters; ++i) {
            expected.push_back(counter(i));
        }
        for (std::uint64_t i = 1; i <= std::min(kLasting, least); ++i) {
            expected.push_back(lasting(i));
        }
        for (std::uint64_t back = 0; back < kBriefRounds && back < least; ++back) {
            expected.push_back(brief(least - back));
        }
        for (const std::string& key : expected) {
            const auto at = found.find(key);
            if (at == found.end() || at->second != 1) {
                return wrong("scan of a store at rest: " + key + " is given " +
                             std::to_string(at == found.end() ? 0 : at->second) + " times");
            }
        }
        return true;
    }

    Progress& progress_;
    std::minstd_rand random_{static_cast<unsigned>(getpid())};
    std::uint64_t seen_ = 0;  // this round and those before are there
    std::array<std::uint64_t, kCounters> counters_{};
    std::map<std::uint64_t, std::uint64_t> gone_;  // brief streams, and when that was noticed
};

TEST_CASE("readers follow a writer through seals and sweeps: no error, nothing back in time") {
    const auto rounds = number_from_environment("DEDUP_FOLLOW_ROUNDS", 4'000);
    const TempDir dir(fast_directory());
    const auto path = dir.path() / "store";
    Shared<Progress> progress;
    const pid_t follower = in_child([&] { return Reader(*progress).run(path, false); });
    const pid_t reopener = in_child([&] { return Reader(*progress).run(path, true); });
    const pid_t writer = in_child([&] { return Writer(*progress).run(path, rounds); });
    CHECK(exit_code(writer) == 0);
    progress->done = true;
    CHECK(exit_code(follower) == 0);
    CHECK(exit_code(reopener) == 0);
    CHECK(std::string(progress->wrong.data()) == "");
    MESSAGE(progress->looks.load()
            << " looks, " << progress->whole_scans.load() << " scans of a store at rest; "
            << progress->seen_swept.load() << " streams found swept; " << progress->given_up.load()
            << " segments given up");
    if (rounds >= 1'000) {
        CHECK(progress->given_up.load() > 0);
        CHECK(progress->whole_scans.load() > 0);
        CHECK(progress->seen_swept.load() > 0);
    }
}

}  // namespace
}  // namespace dedup::test
