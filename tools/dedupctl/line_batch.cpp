#include "line_batch.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <random>

#include "common/failure.hpp"
#include "dedup/event_id.hpp"

namespace dedupctl {
namespace {

// A power of two; at most half of it is ever in use.
constexpr std::size_t kTableSlots = 2 * kBatchLinesMax;
static_assert((kTableSlots & (kTableSlots - 1)) == 0);

std::string_view without_end(std::string_view line, char end_of_line) {
    if (!line.empty() && line.back() == end_of_line) {
        line.remove_suffix(1);
    }
    return line;
}

// Lines come from anywhere; a seed that nobody knows keeps crafted keys from sharing one slot.
std::uint64_t random_seed() {
    std::random_device device;
    return std::uint64_t{device()} << 32U | device();
}

}  // namespace

LineCounts& LineCounts::operator+=(const LineCounts& other) {
    read += other.read;
    fresh += other.fresh;
    repeated += other.repeated;
    no_key += other.no_key;
    in_flight += other.in_flight;
    return *this;
}

LineBatch::LineBatch(LineKey& line_key, char end_of_line, dedup::ClaimOptions options)
    : line_key_(line_key),
      end_of_line_(end_of_line),
      hash_seed_(random_seed()),
      storage_(kBatchLinesMax),
      table_(kTableSlots),
      requests_(kBatchLinesMax, dedup::RememberRequest{{}, {}, std::move(options)}) {}

std::uint32_t LineBatch::slot_of(std::string_view key) {
    std::size_t slot = XXH3_64bits_withSeed(key.data(), key.size(), hash_seed_) % kTableSlots;
    while (table_[slot] != 0) {
        const std::uint32_t place = table_[slot] - 1;
        if (keys_[place] == key) {
            return place | kRepeatBit;
        }
        slot = (slot + 1) % kTableSlots;
    }
    const auto place = static_cast<std::uint32_t>(keys_.size());
    table_[slot] = place + 1;
    keys_.push_back(key);
    return place;
}

void LineBatch::find_keys(std::span<const std::string_view> lines) {
    keys_.clear();
    key_of_.clear();
    std::fill(table_.begin(), table_.end(), 0);
    for (std::size_t i = 0; i < lines.size(); ++i) {
        const auto key = line_key_.find(without_end(lines[i], end_of_line_), storage_[i]);
        if (!key || key->empty()) {
            key_of_.push_back(kNoKey);
        } else if (key->size() > dedup::kKeyBytesMax) {
            storage_[i] = dedup::event_id_from_content(*key);
            key_of_.push_back(slot_of(storage_[i]));
        } else {
            key_of_.push_back(slot_of(*key));
        }
    }
}

void LineBatch::look_up(dedup::Cache& cache) {
    known_.clear();
    if (keys_.empty()) {
        return;
    }
    for (auto& result : cache.lookup_many(keys_)) {
        const dedup::LookupOutcome found = take(std::move(result));
        known_.push_back(std::holds_alternative<dedup::Absent>(found)      ? Known::no
                         : std::holds_alternative<dedup::Completed>(found) ? Known::yes
                                                                           : Known::in_flight);
    }
}

std::string_view LineBatch::sort_out(dedup::Cache& cache, std::span<const std::string_view> lines) {
    find_keys(lines);
    look_up(cache);
    text_.clear();
    requests_used_ = 0;
    counts_ = {.read = lines.size()};
    for (std::size_t i = 0; i < lines.size(); ++i) {
        const std::uint32_t key = key_of_[i];
        if (key == kNoKey) {
            ++counts_.no_key;
            text_ += lines[i];
            continue;
        }
        const std::uint32_t place = key & ~kRepeatBit;
        if (known_[place] == Known::in_flight) {
            // Whoever holds it may release it again: dropping the line could lose it.
            ++counts_.in_flight;
            text_ += lines[i];
        } else if (known_[place] == Known::yes || (key & kRepeatBit) != 0) {
            ++counts_.repeated;
            if (on_repeated) {
                on_repeated(keys_[place]);
            }
        } else {
            ++counts_.fresh;
            text_ += lines[i];
            requests_[requests_used_++].key = keys_[place];
        }
    }
    return text_;
}

void LineBatch::remember(dedup::Cache& cache) {
    if (requests_used_ == 0) {
        return;
    }
    for (auto& result : cache.remember_many({requests_.data(), requests_used_})) {
        // Whatever the outcome: the key is known now, or somebody claimed it.
        static_cast<void>(take(std::move(result)));
    }
}

}  // namespace dedupctl
