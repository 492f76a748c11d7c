#include "memory/life.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <new>
#include <optional>
#include <thread>
#include <utility>

namespace dedup::test {
namespace {

constexpr std::array<const char*, 3> kNamespaces = {"one", "two", "three"};

std::string ns_of(const std::string& key) {
    return kNamespaces[fnv1a_64(key) % kNamespaces.size()];
}

std::string name_of(int i) {
    return "first" + std::to_string(i);
}

Append item(const std::string& key, std::int64_t now_ms, std::size_t receipt_bytes) {
    Append item;
    item.record.ns = ns_of(key);
    item.record.key = key;
    item.record.timestamp_ms = now_ms;
    item.record.receipt = std::string(receipt_bytes, 'r');
    return item;
}

// As much as a segment.
std::vector<std::string> many(const std::string& prefix, int number) {
    std::vector<std::string> keys;
    for (int i = 0; i < 70; ++i) {
        keys.push_back(prefix + std::to_string(number) + "." + std::to_string(i));
    }
    return keys;
}

std::string text(const Error& error) {
    return to_string(error);
}

}  // namespace

void expect(bool holds, const std::string& what) {
    if (!holds) {
        std::fprintf(stderr, "memory_test: %s\n", what.c_str());
        std::fflush(stderr);
        ::_exit(1);
    }
}

Life::Life(std::filesystem::path path, const OpenOptions& options)
    : path_(std::move(path)), options_(options), has_first_keys_(std::filesystem::exists(path_)) {
    options_.segment_bytes = 64 * 1024;
    options_.clock = clock_.clock();
}

void Life::begin() {
    expect(open(), "the store cannot be made");
    std::vector<Append> batch;
    for (int i = 0; i < kFirstKeys; ++i) {
        batch.push_back(item(name_of(i), kStartMs, 900));
        if (i % 2 == 1) {
            batch.back().record.expires_at_ms = kStartMs + 2'000;
        }
        if (batch.size() == 10) {
            for (const auto& result : store_->append(batch)) {
                expect(result.has_value(), "the first keys cannot be appended");
            }
            batch.clear();
        }
    }
    expect(store_->close().has_value(), "the store cannot be closed");
    store_.reset();
}

bool Life::open() {
    try {
        auto opened = LogStore::open(path_, options_, internals_);
        if (opened) {
            store_ = *std::move(opened);
        }
        return opened.has_value();
    } catch (const std::bad_alloc&) {
        return false;
    }
}

bool Life::append(std::vector<std::string> keys, Batch mode, std::size_t receipt_bytes) {
    std::vector<Append> batch;
    Appended appended;
    {
        const UnfailingScope own;
        for (const std::string& key : keys) {
            batch.push_back(item(key, clock_.now_ms(), receipt_bytes));
        }
        appended.atomic = mode == Batch::atomic;
        appended.fates.assign(keys.size(), Fate::refused);
        appended.keys = std::move(keys);
    }
    bool done = true;
    try {
        const auto results = store_->append(batch, mode);
        const UnfailingScope own;
        expect(results.size() == batch.size(), "an append has not answered each item");
        for (std::size_t i = 0; i < results.size(); ++i) {
            const auto& result = results[i];
            done = done && result.has_value();
            expect(!result || *result != 0, "an item was given sequence 0");
            appended.fates[i] = result                                         ? Fate::acknowledged
                                : result.error().code == Code::outcome_unknown ? Fate::unknown
                                                                               : Fate::refused;
        }
    } catch (const std::bad_alloc&) {
        done = false;  // nothing of it has been appended
    }
    const UnfailingScope own;
    expect(!appended.atomic ||
               std::ranges::adjacent_find(appended.fates, std::ranges::not_equal_to()) ==
                   appended.fates.end(),
           "the items of an atomic batch have several fates");
    const std::lock_guard lock(mutex_);
    appended_.push_back(std::move(appended));
    return done;
}

bool Life::sweep(const SweepOptions& options) {
    const auto report = store_->sweep(options);
    if (report && clock_.now_ms() >= kExpiredMs) {
        swept_ = true;
    }
    return report.has_value();
}

void Life::close() {
    (void)store_->close();
    closed_ = true;
}

bool Life::there(const std::string& key) {
    const std::string ns = ns_of(key);
    const auto head = store_->head({ns, key});
    expect(head.has_value(), "head of " + key + ": " + (head ? "" : text(head.error())));
    return head->has_value();
}

// All items are there, or none; or nothing can be read.
void Life::check_atomic(const Appended& appended) {
    std::size_t found = 0;
    for (const std::string& key : appended.keys) {
        const std::string ns = ns_of(key);
        const auto head = store_->head({ns, key});
        if (!head || !appended.atomic || evicts_) {
            return;
        }
        found += head->has_value();
    }
    expect(found == 0 || found == appended.keys.size(), "an atomic batch is there in part");
}

void Life::check_that_it_answers() {
    // Each of these may be an error: the store may have failed, or been closed.
    (void)store_->stats();
    (void)store_->scan({});
    (void)store_->history({ns_of("first0"), "first0"});
    (void)store_->sweep_history();
    for (const Appended& appended : appended_) {
        check_atomic(appended);
    }
    const auto head = store_->head({ns_of("first0"), "first0"});
    expect(evicts_ || !has_first_keys_ || !head || head->has_value(),
           "a key that was acknowledged is absent");
}

// Whatever was left undone, a sweep puts right; or else the store has failed, and says so.
void Life::check_that_it_goes_on() {
    for (int i = 0; i < 5; ++i) {
        (void)append(many("before", i), Batch::each, 1'000);  // an answer is all that it has to get
    }
    if (const auto swept = store_->sweep(); !swept) {
        expect(swept.error().code == Code::failed || swept.error().code == Code::closed,
               "with memory again, a sweep says " + text(swept.error()));
        expect(!append({"after"}), "a store that has failed takes appends");
        return;
    }
    expect(!closed_, "a closed store can be swept");
    swept_ = swept_ || clock_.now_ms() >= kExpiredMs;
    for (int i = 0; i < 5; ++i) {  // more than may wait to be sealed
        expect(append(many("after", i), Batch::each, 1'000),
               "a store that goes on refuses appends");
    }
    const auto stats = store_->stats();
    expect(stats.has_value(), "stats: " + (stats ? "" : text(stats.error())));
}

void Life::check_closing_twice() {
    std::array<std::optional<Result<void>>, 2> answers;
    std::thread other([&] { answers[1] = store_->close(); });
    answers[0] = store_->close();
    other.join();
    expect(answers[0]->has_value() == answers[1]->has_value() &&
               (*answers[0] || answers[0]->error().message == answers[1]->error().message),
           "two callers of close() got two answers");
}

void Life::check_contents() {
    for (int i = 0; i < kFirstKeys && has_first_keys_ && !evicts_; ++i) {
        const bool is_there = there(name_of(i));
        expect(is_there || i % 2 == 1, name_of(i) + " was acknowledged and is absent");
        expect(!is_there || i % 2 == 0 || !swept_, name_of(i) + " was swept and is there");
    }
    for (const Appended& appended : appended_) {
        check_atomic(appended);
        for (std::size_t i = 0; i < appended.keys.size(); ++i) {
            const bool is_there = there(appended.keys[i]);
            expect(is_there || evicts_ || appended.fates[i] != Fate::acknowledged,
                   appended.keys[i] + " was acknowledged and is absent");
            expect(!is_there || appended.fates[i] != Fate::refused,
                   appended.keys[i] + " was refused and is there");
        }
    }
    const auto stats = store_->stats();
    expect(stats.has_value(), "stats: " + (stats ? "" : text(stats.error())));
    std::uint64_t heads = 0;
    ScanOptions scan;
    do {
        const auto page = store_->scan(scan);
        expect(page.has_value(), "scan: " + (page ? "" : text(page.error())));
        heads += page->heads.size();
        scan.cursor = page->cursor;
    } while (!scan.cursor.empty());
    expect(heads == stats->streams(), "a scan finds " + std::to_string(heads) + " streams, stats " +
                                          std::to_string(stats->streams()));
}

void Life::check() {
    if (store_ && !options_.read_only) {
        check_that_it_answers();
        check_that_it_goes_on();
        check_closing_twice();
    }
    store_.reset();
    options_.read_only = false;
    options_.durability = Durability::sync;
    auto opened = LogStore::open(path_, options_, internals_);
    expect(opened.has_value(), "open again: " + (opened ? "" : text(opened.error())));
    store_ = *std::move(opened);
    check_contents();
    expect(append({"reopened"}), "a store that was opened again refuses appends");
    const auto closed = store_->close();
    expect(closed.has_value(), "close: " + (closed ? "" : text(closed.error())));
    store_.reset();
    const auto verified = verify(path_);
    expect(verified.has_value(), "verify: " + (verified ? "" : text(verified.error())));
    expect(verified->problems.empty(),
           "verify: " + (verified->problems.empty() ? "" : verified->problems.front()));
}

}  // namespace dedup::test
