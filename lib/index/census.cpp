#include "index/census.hpp"

#include "catalog/value_codec.hpp"

namespace dedup {
namespace {

void put_tally(ValueWriter& writer, const Tally& tally) {
    writer.number(tally.size());
    for (const auto& [ns, counts] : tally) {
        writer.text(ns);
        writer.counts(counts);
    }
}

Tally take_tally(ValueReader& reader) {
    Tally tally;
    for (std::uint64_t left = reader.number(); left > 0 && reader.good(); --left) {
        std::string ns = reader.text();
        if (!tally.empty() && ns <= tally.rbegin()->first) {
            reader.refuse();
        }
        tally.emplace(std::move(ns), reader.counts());
    }
    return tally;
}

}  // namespace

const Tally& tally_of(const SegmentTallies& tallies, std::uint64_t id) {
    static const Tally kNone;
    const auto at = tallies.find(id);
    return at == tallies.end() ? kNone : at->second;
}

StateCounts total(const Tally& tally) {
    StateCounts sum;
    for (const auto& [ns, counts] : tally) {
        sum += counts;
    }
    return sum;
}

void add(Tally& to, const Tally& more) {
    for (const auto& [ns, counts] : more) {
        counts_of(to, ns) += counts;
    }
}

Tally Census::live() const {
    Tally live = streams;
    for (const Tally* gone : {&superseded, &removed}) {
        for (const auto& [ns, counts] : *gone) {
            counts_of(live, ns) -= counts;
        }
    }
    return live;
}

std::string encode_census(const Census& census) {
    ValueWriter writer;
    put_tally(writer, census.streams);
    put_tally(writer, census.superseded);
    put_tally(writer, census.removed);
    return writer.finish();
}

Result<Census> decode_census(std::string_view bytes) {
    ValueReader reader(bytes);
    Census census;
    census.streams = take_tally(reader);
    census.superseded = take_tally(reader);
    census.removed = take_tally(reader);
    if (!reader.finished()) {
        return std::unexpected(Error{Code::corruption, "a census is not intact"});
    }
    return census;
}

}  // namespace dedup
