// Attacks the values of the catalog: decoding them must not crash on any bytes, and what decodes
// must encode to the same bytes. Searches in an index or a filter whose contents are damaged, but
// whose checksums are right, must end within it.
#include <xxhash.h>

#include <algorithm>
#include <string>
#include <vector>

#include "catalog/report.hpp"
#include "env/bytes.hpp"
#include "index/census.hpp"
#include "index/filter.hpp"
#include "index/sealed_index.hpp"
#include "input.hpp"
#include "support/blob.hpp"

namespace dedup::fuzz {
namespace {

constexpr std::uint64_t kEntriesMax = 400;
constexpr std::uint64_t kOwner = 7;

std::string with_checksum(std::string_view bytes) {
    std::string value(bytes);
    value.resize(bytes.size() + sizeof(std::uint64_t));
    store(value.data() + bytes.size(), XXH3_64bits(bytes.data(), bytes.size()));
    return value;
}

void take_census(std::string_view bytes) {
    const auto census = decode_census(bytes);
    if (!census) {
        require(census.error().code == Code::corruption);
        return;
    }
    require(encode_census(*census) == bytes, "other bytes stand for the same census");
    (void)census->live();
}

void take_report(std::string_view bytes) {
    const auto report = decode_report(bytes);
    if (!report) {
        require(report.error().code == Code::corruption);
        return;
    }
    require(encode_report(*report) == bytes, "other bytes stand for the same report");
}

// Entries whose ids are spread as the input says: any numbers, or all near one another.
std::vector<IndexEntry> entries_from(Input& input) {
    const std::uint64_t spread = input.number();
    std::vector<IndexEntry> entries;
    while (!input.done() && entries.size() < kEntriesMax) {
        const std::uint64_t hash = input.number() * (spread | 1);
        entries.push_back({{hash}, entries.size() + 1, 80, 0});
    }
    std::ranges::sort(entries, {}, &IndexEntry::id);
    return entries;
}

void search(const SealedIndex& index, const StreamId& id, std::span<const IndexEntry> sorted) {
    const auto found = index.lower_bound(id);
    if (!found) {
        require(sorted.empty(), "a search gives up in what is intact");
        return;
    }
    require(*found <= index.size());
    if (!sorted.empty()) {
        const auto expected = std::ranges::lower_bound(sorted, id, {}, &IndexEntry::id);
        require(*found == static_cast<std::uint64_t>(expected - sorted.begin()),
                "a search misses its entry");
    }
}

void take_index(Input& input, bool damaged) {
    const std::vector<IndexEntry> entries = entries_from(input);
    std::string data = test::index_data(entries);
    if (damaged) {
        for (const IndexEntry& entry : entries) {
            data[entry.id.xxh % data.size()] ^= static_cast<char>(entry.id.xxh >> 56);
        }
    }
    const std::string blob = test::make_blob(data, kOwner);
    const SealedIndex index(
        CheckedBlob(blob, data.size(), kOwner, std::make_shared<CheckedBlocks>(data.size())),
        entries.size());
    const std::span<const IndexEntry> sorted = damaged ? std::span<const IndexEntry>() : entries;
    for (const IndexEntry& entry : entries) {
        search(index, entry.id, sorted);
        search(index, {entry.id.xxh - 1}, sorted);
        search(index, {~entry.id.xxh}, sorted);
    }
    for (std::uint64_t i = 0; i < entries.size(); ++i) {
        require(damaged || index.entry(i) == entries[i]);
    }
}

void take_filter(Input& input) {
    const std::vector<IndexEntry> entries = entries_from(input);
    const std::uint64_t count = entries.size();
    const std::uint64_t joint_bytes = JointFilter::bytes_for(count);
    const auto run = FilterRun::allocate({&count, 1}, joint_bytes);
    build_filter(entries, run->data(0));
    for (const IndexEntry& entry : entries) {
        FilterBits(entry.id).add_to<JointFilter>(run->joint_data(), joint_bytes);
    }
    for (const IndexEntry& entry : entries) {
        const FilterBits bits(entry.id);
        require(bits.in(run->filters()[0]), "a filter denies a key that it has");
        require(run->may_have(entry.id, bits), "a joint filter denies a key that it has");
        (void)FilterBits({~entry.id.xxh}).in(run->filters()[0]);
    }
}

}  // namespace
}  // namespace dedup::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace dedup::fuzz;
    Input input(data, size);
    const std::uint8_t what = input.byte();
    switch (what % 8) {
        case 0:
            take_census(input.rest());
            break;
        case 1:
            take_report(input.rest());
            break;
        case 2:
        case 3:
            take_census(with_checksum(input.rest()));
            break;
        case 4:
        case 5:
            take_report(with_checksum(input.rest()));
            break;
        case 6:
            take_filter(input);
            break;
        default:
            take_index(input, what >= 128);
            break;
    }
    return 0;
}
