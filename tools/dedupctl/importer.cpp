#include "importer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "context.hpp"

namespace dedupctl {
namespace {

// One flush of the disk for as many, or as much, of them.
constexpr std::size_t kItemsMax = 4096;
constexpr std::size_t kBytesMax = 8 * 1024 * 1024;

// A record from later than now would make the store believe that time, and expire its keys. So
// much of it may be two clocks that differ.
constexpr std::int64_t kAheadMsMax = 60'000;

constexpr std::uint64_t kDifferencesShown = 100;
constexpr std::size_t kKeyColumnsShown = 60;

std::size_t bytes_of(const dedup::Record& record) {
    return record.key.size() + record.metadata.size() + record.unknown_fields.size() +
           record.verdict.by.size() + record.verdict.reason.size() +
           (record.receipt ? record.receipt->size() : 0);
}

// Sequences are each store's own.
bool equal_but_for_sequences(const dedup::Record& a, dedup::Record b) {
    b.sequence = a.sequence;
    b.claim_sequence = a.claim_sequence;
    return a == b;
}

}  // namespace

Importer::Importer(dedup::StreamStore& store, Differences differences)
    : store_(store), differences_(differences) {}

std::string Importer::add(ImportItem item) {
    if (!item.record) {
        return item.record.error();
    }
    if (item.record->timestamp_ms > store_.now_ms() + kAheadMsMax) {
        return fmt::format("its time, {}, is yet to come", format_time(item.record->timestamp_ms));
    }
    if (item.part != part_) {
        finish();
        part_ = item.part;
    }
    // The fence of another store means nothing here: a new one keeps its claims from this one.
    item.record->sequence = 0;
    item.record->claim_sequence = 0;
    bytes_ += bytes_of(*item.record);
    items_.push_back(std::move(item));
    if (items_.size() == kItemsMax || bytes_ >= kBytesMax) {
        flush();
    }
    return "";
}

void Importer::finish() {
    flush();
    report_differences();
    of_part_ = {};
}

void Importer::flush() {
    std::vector<std::size_t> open(items_.size());
    for (std::size_t i = 0; i < open.size(); ++i) {
        open[i] = i;
    }
    try {
        while (!open.empty()) {
            flush_open(open);
        }
    } catch (const Failure&) {
        forget();  // or a second flush would count some of them twice
        throw;
    }
    forget();
}

void Importer::forget() {
    items_.clear();
    bytes_ = 0;
}

// What is left open has lost a race: against an equal key before it, or another writer.
void Importer::flush_open(std::vector<std::size_t>& open) {
    std::vector<dedup::StreamKey> streams;
    for (const std::size_t i : open) {
        streams.push_back({items_[i].record->ns, items_[i].record->key});
    }
    const auto heads = store_.heads(streams);
    std::vector<dedup::Append> batch;
    std::vector<std::size_t> appending;
    for (std::size_t j = 0; j < open.size(); ++j) {
        const auto& head = take(heads[j]);
        if (!settle(items_[open[j]], head ? &*head : nullptr)) {
            batch.push_back({head ? head->sequence : 0, *items_[open[j]].record});
            appending.push_back(open[j]);
        }
    }
    open.clear();
    const auto landed = store_.append(batch);
    const dedup::Error* failure = nullptr;
    for (std::size_t j = 0; j < landed.size(); ++j) {
        if (landed[j]) {
            ++counts_.imported;
            note_of_part(items_[appending[j]], *landed[j]);
        } else if (landed[j].error().code == dedup::Code::sequence_conflict) {
            open.push_back(appending[j]);
        } else if (failure == nullptr) {
            failure = &landed[j].error();
        }
    }
    if (failure != nullptr) {
        throw library_failure(*failure);
    }
}

// Counts what needs no append; false for what does.
bool Importer::settle(const ImportItem& item, const dedup::Record* head) {
    const std::int64_t now_ms = store_.now_ms();
    if (dedup::expired(item.record->expires_at_ms, now_ms, store_.grace())) {
        ++counts_.expired;
        return true;
    }
    if (head == nullptr || dedup::expired(head->expires_at_ms, now_ms, store_.grace())) {
        return false;
    }
    if (equal_but_for_sequences(*head, *item.record)) {
        ++counts_.equal;
        note_of_part(item, head->sequence);
        if (const auto older = differ_.find(head->sequence); item.newer && older != differ_.end()) {
            counts_.differ -= older->second;
            counts_.equal += older->second;
            differ_.erase(older);
            std::erase_if(reports_, [&](const Difference& difference) {
                return difference.head == head->sequence;
            });
        }
        return true;
    }
    if (item.newer && of_part_.contains(head->sequence)) {
        return false;
    }
    add_difference(item, *head);
    return true;
}

void Importer::note_of_part(const ImportItem& item, std::uint64_t head) {
    if (item.part != 0) {
        of_part_.insert(head);
    }
}

void Importer::add_difference(const ImportItem& item, const dedup::Record& head) {
    ++counts_.differ;
    if (differences_ == Differences::counted) {
        return;
    }
    ++differ_[head.sequence];
    if (reports_.size() < kDifferencesShown) {
        reports_.push_back(
            {head.sequence,
             fmt::format("{}: key \"{}\" is in the store already, {} at {}, with another record; "
                         "that one stays",
                         item.place, preview(head.key, kKeyColumnsShown), dedup::name(head.state()),
                         format_time(head.timestamp_ms))});
    }
}

void Importer::report_differences() {
    std::uint64_t unlisted = 0;
    for (const auto& [head, lines] : differ_) {
        unlisted += lines;
    }
    unlisted -= reports_.size();
    for (const Difference& difference : reports_) {
        note(difference.text);
    }
    if (unlisted != 0) {
        note(count_of(unlisted, "more such record") + ", not listed");
    }
    reports_.clear();
    differ_.clear();
}

}  // namespace dedupctl
