#include "crash/ledger.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

namespace dedup::test {
namespace {

using Name = std::pair<std::string, std::string>;  // namespace and key

// Whether the stored record is what was handed in. A sequence that nobody was told may be any.
bool same(const LedgerEntry& entry, const Record& stored) {
    Record expected = entry.record;
    if (expected.sequence == 0) {
        expected.sequence = stored.sequence;
        expected.claim_sequence =
            expected.claim_sequence == 0 ? stored.sequence : expected.claim_sequence;
    }
    return expected == stored;
}

std::string show(const Name& name) {
    return name.first + "/" + name.second;
}

std::string show(const Record& record) {
    return "sequence " + std::to_string(record.sequence) + " " + std::string(name(record.state()));
}

class Comparison {
  public:
    Comparison(StreamStore& store, const Ledger& ledger, const Ledger::Mark& mark)
        : store_(store), ledger_(ledger), mark_(mark) {}

    Verdict run() {
        find_present();
        for (std::size_t i = 0; i < mark_.begun; ++i) {
            const LedgerEntry& entry = ledger_.entries[i];
            auto& versions = streams_[{entry.record.ns, entry.record.key}];
            if (i < verdict_.present && !entry.refused) {
                versions.push_back(&entry);
            }
        }
        for (const auto& check : {&Comparison::check_heads, &Comparison::check_histories,
                                  &Comparison::check_counts, &Comparison::check_scan}) {
            if (verdict_.wrong.empty()) {
                (this->*check)();
            }
        }
        return verdict_;
    }

  private:
    void wrong(const std::string& what) {
        if (verdict_.wrong.empty()) {
            verdict_.wrong = what;
        }
    }

    // Those that need not be there are there up to some point, and none beyond.
    void find_present() {
        verdict_.present = mark_.durable;
        bool ended = false;
        for (std::size_t i = mark_.durable; i < mark_.begun; ++i) {
            const LedgerEntry& entry = ledger_.entries[i];
            if (entry.refused) {
                verdict_.present += ended ? 0 : 1;
                continue;
            }
            if (!is_there(entry)) {
                ended = true;
            } else if (ended) {
                wrong("an append survived and one before it did not: " + show(entry.record));
            } else {
                verdict_.present = i + 1;
            }
        }
        const std::size_t present = verdict_.present;
        if (present > 0 && present < mark_.begun && ledger_.entries[present - 1].atomic &&
            !ledger_.entries[present].refused &&
            ledger_.entries[present].call == ledger_.entries[present - 1].call) {
            wrong("half of an atomic batch survived");
        }
    }

    bool is_there(const LedgerEntry& entry) {
        const auto versions = store_.history({entry.record.ns, entry.record.key});
        if (!versions) {
            wrong("history of " + entry.record.key + ": " + versions.error().message);
            return false;
        }
        return std::ranges::any_of(
            *versions, [&](const Version& version) { return same(entry, version.record); });
    }

    void check_heads() {
        std::vector<StreamKey> names;
        for (const auto& [name, versions] : streams_) {
            names.push_back({name.first, name.second});
        }
        const auto heads = store_.heads(names);
        std::size_t i = 0;
        for (const auto& [name, versions] : streams_) {
            const auto& head = heads[i++];
            if (!head) {
                wrong("head of " + show(name) + ": " + head.error().message);
            } else if (versions.empty() && *head) {
                wrong(show(name) + " should be absent and has " + show(**head));
            } else if (!versions.empty() && !*head) {
                wrong(show(name) + " is lost: " + show(versions.back()->record));
            } else if (*head && !same(*versions.back(), **head)) {
                wrong("the head of " + show(name) + " should be " + show(versions.back()->record) +
                      " and is " + show(**head));
            }
        }
    }

    // (A sweep may drop versions that are not heads: from then on compare the end of the history.)
    void check_histories() {
        for (const auto& [name, versions] : streams_) {
            const auto stored = store_.history({name.first, name.second});
            if (!stored) {
                wrong("history of " + show(name) + ": " + stored.error().message);
            } else if (!std::ranges::equal(*stored, versions,
                                           [](const Version& version, const LedgerEntry* entry) {
                                               return same(*entry, version.record);
                                           })) {
                wrong("the history of " + show(name) + " has " + std::to_string(stored->size()) +
                      " versions, not the " + std::to_string(versions.size()) + " expected");
            }
        }
    }

    void check_counts() {
        const auto stats = store_.stats();
        if (!stats) {
            wrong("stats: " + stats.error().message);
            return;
        }
        std::array<std::uint64_t, 3> streams{};
        std::uint64_t records = 0;
        std::uint64_t last_sequence = 0;
        for (const auto& [name, versions] : streams_) {
            records += versions.size();
            if (!versions.empty()) {
                ++streams[static_cast<std::size_t>(versions.back()->record.state())];
                last_sequence = std::max(last_sequence, versions.back()->record.sequence);
            }
        }
        if (std::array{stats->in_flight, stats->completed, stats->released} != streams) {
            wrong("the streams are not counted right");
        }
        if (stats->records != records) {
            wrong("there are " + std::to_string(records) + " records, stats say " +
                  std::to_string(stats->records));
        }
        if (stats->last_sequence < last_sequence) {
            wrong("stats say that the last sequence is " + std::to_string(stats->last_sequence));
        }
    }

    void check_scan() {
        std::map<Name, std::uint64_t> seen;
        ScanOptions options;
        options.heads_max = 100;
        do {
            const auto page = store_.scan(options);
            if (!page) {
                wrong("scan: " + page.error().message);
                return;
            }
            for (const Version& head : page->heads) {
                if (!seen.emplace(Name{head.record.ns, head.record.key}, head.record.sequence)
                         .second) {
                    wrong("scan gives " + head.record.key + " twice");
                }
            }
            options.cursor = page->cursor;
        } while (!options.cursor.empty());
        std::size_t expected = 0;
        for (const auto& [name, versions] : streams_) {
            expected += versions.empty() ? 0U : 1U;
            if (!versions.empty() && !seen.contains(name)) {
                wrong("scan leaves out " + show(name));
            }
        }
        if (seen.size() != expected) {
            wrong("scan gives streams that were never appended");
        }
    }

    StreamStore& store_;
    const Ledger& ledger_;
    const Ledger::Mark& mark_;
    std::map<Name, std::vector<const LedgerEntry*>> streams_;
    Verdict verdict_;
};

}  // namespace

std::vector<Result<std::uint64_t>> LedgerStore::append(std::span<const Append> batch, Batch mode) {
    const std::size_t first = ledger_.entries.size();
    for (const Append& item : batch) {
        ledger_.entries.push_back({item.record, first, mode == Batch::atomic});
        ledger_.entries.back().record.sequence = 0;  // the store assigns it
    }
    auto results = inner_.append(batch, mode);
    for (std::size_t i = 0; i < results.size(); ++i) {
        LedgerEntry& entry = ledger_.entries[first + i];
        if (results[i]) {
            entry.record.sequence = *results[i];
            if (entry.record.claim_sequence == 0) {
                entry.record.claim_sequence = *results[i];
            }
            ledger_.sequence_told = std::max(ledger_.sequence_told, *results[i]);
            continue;
        }
        if (results[i].error().code == Code::outcome_unknown) {
            ledger_.in_doubt = true;
        } else {
            entry.refused = true;
        }
        if (results[i].error().code != Code::sequence_conflict) {
            errors.push_back(results[i].error());
        }
    }
    if (acknowledged_is_durable_ && !ledger_.in_doubt) {
        ledger_.durable = ledger_.entries.size();
    }
    return results;
}

Result<void> LedgerStore::flush() {
    auto flushed = inner_.flush();
    if (flushed && !ledger_.in_doubt) {
        ledger_.durable = ledger_.entries.size();
    }
    return flushed;
}

Verdict compare(StreamStore& store, const Ledger& ledger, const Ledger::Mark& mark) {
    return Comparison(store, ledger, mark).run();
}

Ledger continued(const Ledger& ledger, const Ledger::Mark& mark, std::size_t present) {
    Ledger after;
    after.entries.assign(ledger.entries.begin(),
                         ledger.entries.begin() + static_cast<std::ptrdiff_t>(present));
    after.durable = present;
    after.sequence_told = mark.sequence_told;
    for (const LedgerEntry& entry : after.entries) {
        after.sequence_told = std::max(after.sequence_told, entry.record.sequence);
    }
    return after;
}

}  // namespace dedup::test
