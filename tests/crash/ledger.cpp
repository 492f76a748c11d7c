#include "crash/ledger.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "crash/told.hpp"

namespace dedup::test {
namespace {

using Name = std::pair<std::string, std::string>;  // namespace and key

// Whether the stored record is what was handed in. A sequence that nobody was told may be any new
// one.
bool same(const LedgerEntry& entry, const Record& stored) {
    Record expected = entry.record;
    if (expected.sequence == 0 && stored.sequence > entry.after) {
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

std::string show(const StateCounts& counts) {
    return std::to_string(counts.in_flight) + "+" + std::to_string(counts.completed) + "+" +
           std::to_string(counts.released) + " (in flight, completed, released)";
}

bool same(const std::vector<const LedgerEntry*>& versions, const std::optional<Record>& head) {
    return versions.empty() ? !head : head && same(*versions.back(), *head);
}

// The streams that a ledger's entries leave.
class Streams {
  public:
    using Versions = std::vector<const LedgerEntry*>;

    // Gives the streams that have changed.
    std::vector<Name> apply(const LedgerEntry& entry) {
        if (entry.refused) {
            return {};
        }
        if (entry.swept_before_ms) {
            return sweep(*entry.swept_before_ms);
        }
        Name name{entry.record.ns, entry.record.key};
        streams_[name].push_back(&entry);
        return {std::move(name)};
    }

    [[nodiscard]] const std::map<Name, Versions>& all() const { return streams_; }
    // What sweeps have removed.
    [[nodiscard]] const StateCounts& removed() const { return removed_; }
    [[nodiscard]] StateCounts live() const {
        StateCounts counts;
        for (const auto& [name, versions] : streams_) {
            if (!versions.empty()) {
                ++counts[versions.back()->record.state()];
            }
        }
        return counts;
    }

  private:
    std::vector<Name> sweep(std::int64_t expired_before_ms) {
        std::vector<Name> gone;
        for (auto& [name, versions] : streams_) {
            if (versions.empty()) {
                continue;
            }
            const Record& head = versions.back()->record;
            if (head.expires_at_ms != 0 && head.expires_at_ms < expired_before_ms) {
                ++removed_[head.state()];
                versions.clear();
                gone.push_back(name);
            }
        }
        return gone;
    }

    std::map<Name, Versions> streams_;
    StateCounts removed_;
};

class Comparison {
  public:
    Comparison(StreamStore& store, const Ledger& ledger, const Ledger::Mark& mark)
        : store_(store), ledger_(ledger), mark_(mark) {}

    Verdict run() {
        read_heads();
        find_present();
        for (std::size_t i = 0; i < mark_.begun; ++i) {
            const LedgerEntry& entry = ledger_.entries[i];
            sweeps_end_ = entry.swept_before_ms ? i + 1 : sweeps_end_;
            if (i < verdict_.present) {
                (void)streams_.apply(entry);
                last_sequence_ = std::max(last_sequence_, entry.record.sequence);
            }
        }
        for (const auto& check :
             {&Comparison::check_heads, &Comparison::check_histories, &Comparison::check_counts,
              &Comparison::check_scan, &Comparison::check_reports, &Comparison::check_told}) {
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

    void read_heads() {
        for (std::size_t i = 0; i < mark_.begun; ++i) {
            const LedgerEntry& entry = ledger_.entries[i];
            if (!entry.swept_before_ms) {
                heads_.try_emplace({entry.record.ns, entry.record.key});
            }
        }
        std::vector<StreamKey> names;
        for (const auto& [name, head] : heads_) {
            names.push_back({name.first, name.second});
        }
        const auto found = store_.heads(names);
        std::size_t i = 0;
        for (auto& [name, head] : heads_) {
            const auto& result = found[i++];
            if (!result) {
                wrong("head of " + show(name) + ": " + result.error().message);
                return;
            }
            head = *result;
            verdict_.sequence_max = std::max(verdict_.sequence_max, head ? head->sequence : 0);
        }
    }

    // Whether a crash may leave the first `count` entries and no others.
    [[nodiscard]] bool may_end_at(std::size_t count) const {
        const auto& entries = ledger_.entries;
        return count == 0 || count == mark_.begun || !entries[count - 1].atomic ||
               entries[count].call != entries[count - 1].call;
    }

    // Those that need not be there are there up to some point, and none beyond: the one at which
    // the heads are those of the store, or the nearest to it.
    void find_present() {
        Streams streams;
        std::set<Name> differ;
        const auto look_at = [&](const Name& name) {
            static const Streams::Versions kNone;
            const auto at = streams.all().find(name);
            if (same(at == streams.all().end() ? kNone : at->second, heads_[name])) {
                differ.erase(name);
            } else {
                differ.insert(name);
            }
        };
        for (std::size_t i = 0; i < mark_.durable; ++i) {
            (void)streams.apply(ledger_.entries[i]);
        }
        for (const auto& [name, head] : heads_) {
            look_at(name);
        }
        verdict_.present = mark_.durable;
        std::size_t fewest = differ.size();
        for (std::size_t i = mark_.durable; i < mark_.begun; ++i) {
            std::ranges::for_each(streams.apply(ledger_.entries[i]), look_at);
            if (may_end_at(i + 1) && differ.size() <= fewest) {
                fewest = differ.size();
                verdict_.present = i + 1;
            }
        }
    }

    void check_heads() {
        for (const auto& [name, versions] : streams_.all()) {
            const auto& head = heads_[name];
            if (versions.empty() && head) {
                wrong(show(name) + " should be absent and has " + show(*head));
            } else if (!versions.empty() && !head) {
                wrong(show(name) + " is lost: " + show(versions.back()->record));
            } else if (!same(versions, head)) {
                wrong("the head of " + show(name) + " should be " + show(versions.back()->record) +
                      " and is " + show(*head));
            }
        }
        for (const auto& [name, head] : heads_) {
            if (head && !streams_.all().contains(name)) {
                wrong(show(name) + " should be absent and has " + show(*head));
            }
        }
    }

    // Of versions that are not heads a sweep may have dropped any that it had come upon.
    [[nodiscard]] bool may_be_dropped(const LedgerEntry& entry) const {
        return static_cast<std::size_t>(&entry - ledger_.entries.data()) < sweeps_end_;
    }

    void check_histories() {
        for (const auto& [name, versions] : streams_.all()) {
            const auto stored = store_.history({name.first, name.second});
            if (!stored) {
                wrong("history of " + show(name) + ": " + stored.error().message);
                return;
            }
            std::size_t found = 0;  // of those stored, in the versions' order
            bool lost = false;
            for (const LedgerEntry* const entry : versions) {
                const bool there = found < stored->size() && same(*entry, (*stored)[found].record);
                const bool is_head = entry == versions.back();
                found += there ? 1U : 0U;
                lost = lost || (!there && (is_head || !may_be_dropped(*entry)));
            }
            if (found != stored->size() || lost) {
                wrong("the history of " + show(name) + " has " + std::to_string(stored->size()) +
                      " versions, which are not of the " + std::to_string(versions.size()) +
                      " expected");
            }
        }
    }

    void check_counts() {
        const auto stats = store_.stats();
        if (!stats) {
            wrong("stats: " + stats.error().message);
            return;
        }
        if (!stats->sweep_error.empty()) {
            return;  // what that sweep removed is counted by the next
        }
        const StateCounts counts{stats->in_flight, stats->completed, stats->released};
        if (counts != streams_.live()) {
            wrong("stats say " + show(counts) + ", and there are " + show(streams_.live()));
        }
        std::uint64_t records = 0;
        for (const auto& [name, versions] : streams_.all()) {
            records += versions.size();
        }
        const bool right =
            sweeps_end_ == 0 ? stats->records == records : stats->records >= counts.total();
        if (!right) {
            wrong("there are " + std::to_string(records) + " records, stats say " +
                  std::to_string(stats->records));
        }
        if (stats->last_sequence < last_sequence_) {
            wrong("stats say that the last sequence is " + std::to_string(stats->last_sequence));
        }
    }

    // Each stream that was removed is in one report, unless this went with the catalog.
    void check_reports() {
        const auto reports = store_.sweep_history();
        const auto stats = store_.stats();
        if (!reports || !stats) {
            wrong("sweep history: " + (reports ? stats.error() : reports.error()).message);
            return;
        }
        const bool lost =
            ledger_.reports_lost || stats->catalog_rebuilt || !stats->sweep_error.empty();
        StateCounts reported;
        for (const SweepReport& report : *reports) {
            reported += report.removed;
        }
        const StateCounts& removed = streams_.removed();
        const bool too_many = reported.in_flight > removed.in_flight ||
                              reported.completed > removed.completed ||
                              reported.released > removed.released;
        if (too_many || (!lost && reported != removed)) {
            wrong("sweeps report " + show(reported) + " removed, and it was " + show(removed));
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
        for (const auto& [name, versions] : streams_.all()) {
            expected += versions.empty() ? 0U : 1U;
            if (!versions.empty() && !seen.contains(name)) {
                wrong("scan leaves out " + show(name));
            }
        }
        if (seen.size() != expected) {
            wrong("scan gives streams that were never appended");
        }
    }

    void check_told() {
        const Told told(ledger_, verdict_.present);
        wrong(told.problem(store_));
        verdict_.standing = told.standing(store_.now_ms());
    }

    StreamStore& store_;
    const Ledger& ledger_;
    const Ledger::Mark& mark_;
    std::map<Name, std::optional<Record>> heads_;
    Streams streams_;
    std::uint64_t last_sequence_ = 0;
    std::size_t sweeps_end_ = 0;  // behind the last sweep that had been begun; 0: there was none
    Verdict verdict_;
};

}  // namespace

std::vector<Result<std::uint64_t>> LedgerStore::append(std::span<const Append> batch, Batch mode) {
    const std::size_t first = ledger_.entries.size();
    for (const Append& item : batch) {
        ledger_.entries.push_back(
            {item.record, ledger_.sequence_told, first, mode == Batch::atomic, false, {}});
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
            note_sequence(*results[i]);
            continue;
        }
        if (results[i].error().code == Code::outcome_unknown) {
            if (acknowledged_is_durable_ && !ledger_.in_doubt) {
                ledger_.durable = first + i;  // a span that begins a segment is flushed before
            }
            ledger_.in_doubt = true;
            // Of two appends to a stream in one batch the second has lost, whatever came of the
            // first.
            const auto before = std::span(ledger_.entries).subspan(first, i);
            entry.refused = std::ranges::any_of(before, [&](const LedgerEntry& other) {
                return !other.refused && other.record.ns == entry.record.ns &&
                       other.record.key == entry.record.key;
            });
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

void LedgerStore::note_sequence(std::uint64_t sequence) {
    if (sequence <= ledger_.sequence_told) {
        wrong = "sequence " + std::to_string(sequence) + " was assigned after " +
                std::to_string(ledger_.sequence_told);
    }
    ledger_.sequence_told = std::max(ledger_.sequence_told, sequence);
}

Result<SweepReport> LedgerStore::sweep(const SweepOptions& options) {
    const std::int64_t now_ms = std::max(inner_.now_ms(), options.now_ms.value_or(0));
    LedgerEntry entry;
    entry.call = ledger_.entries.size();
    entry.swept_before_ms = now_ms - grace().count();
    ledger_.entries.push_back(entry);
    auto report = inner_.sweep(options);
    note_outcome(ledger_.entries.back(), report);
    const bool writes = acknowledged_is_durable_ || (report && report->removed.total() != 0);
    if (!ledger_.in_doubt && report && writes) {
        ledger_.durable = ledger_.entries.size();  // a sweep flushes all before what it writes
    }
    return report;
}

void LedgerStore::note_outcome(LedgerEntry& entry, const Result<SweepReport>& report) {
    Streams streams;
    for (std::size_t i = 0; i + 1 < ledger_.entries.size(); ++i) {
        (void)streams.apply(ledger_.entries[i]);
    }
    const StateCounts before = streams.removed();
    const std::vector<Name> gone = streams.apply(entry);
    if (report) {
        StateCounts removed = streams.removed();
        removed -= before;
        if (report->removed != removed || report->retained != streams.live()) {
            wrong = "a sweep says that it removed " + show(report->removed) + " and left " +
                    show(report->retained) + ", and it was " + show(removed) + " and " +
                    show(streams.live());
        }
        reports.push_back(*report);
        return;
    }
    errors.push_back(report.error());
    const bool unknown = report.error().code == Code::outcome_unknown;
    ledger_.in_doubt = ledger_.in_doubt || unknown;
    entry.refused = report.error().code == Code::failed || open_;
    if (!entry.refused && !unknown && !gone.empty()) {
        open_ = {ledger_.entries.size() - 1, gone.front()};
        settle_sweep();
    }
}

// It may have come to naught, or failed later: then the streams are gone.
void LedgerStore::settle_sweep() {
    if (!open_) {
        return;
    }
    const auto head = inner_.head({open_->second.first, open_->second.second});
    if (head) {
        ledger_.entries[open_->first].refused = head->has_value();
        open_.reset();
    }
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

Ledger continued(const Ledger& ledger, const Ledger::Mark& mark, const Verdict& found) {
    Ledger after;
    after.entries.assign(ledger.entries.begin(),
                         ledger.entries.begin() + static_cast<std::ptrdiff_t>(found.present));
    after.durable = found.present;
    after.sequence_told = std::max(mark.sequence_told, found.sequence_max);
    after.reports_lost = ledger.reports_lost;
    after.untold = ledger.untold;
    for (const auto& call : ledger.calls) {
        if (call->end <= found.present) {
            after.calls.push_back(call);
        } else if (call->first < found.present) {
            call->give_up(after.untold);
        }
    }
    for (const LedgerEntry& entry : after.entries) {
        after.sequence_told = std::max(after.sequence_told, entry.record.sequence);
    }
    return after;
}

}  // namespace dedup::test
