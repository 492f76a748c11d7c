// Attacks the record decoder: it must not crash on any input, and what it accepts must encode
// back to the same bytes.
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "input.hpp"
#include "record/codec.hpp"

using dedup::fuzz::as_text;
using dedup::fuzz::Input;
using dedup::fuzz::require;

namespace {

std::string encoded(const dedup::Record& record) {
    std::string bytes;
    dedup::encode(record, bytes);
    return bytes;
}

// Gives one field another value, which need not be allowed.
void change_field(dedup::Record& record, Input& from) {
    const auto time = [&] { return static_cast<std::int64_t>(from.number()); };
    switch (from.below(19)) {
        case 0:
            record.kind =
                record.kind == dedup::Kind::active ? dedup::Kind::tombstone : dedup::Kind::active;
            break;
        case 1:
            record.ns = from.text();
            break;
        case 2:
            record.key = from.text();
            break;
        case 3:
            record.sequence = from.number();
            break;
        case 4:
            record.claim_sequence = from.number();
            break;
        case 5:
            record.timestamp_ms = time();
            break;
        case 6:
            record.expires_at_ms = time();
            break;
        case 7:
            record.ttl_ms = time();
            break;
        case 8:
            record.lease_until_ms = time();
            break;
        case 9:
            record.attempt = static_cast<std::uint32_t>(from.number());
            break;
        case 10:
            record.owner = from.text();
            break;
        case 11:
            record.fingerprint = from.text();
            break;
        case 12:
            record.receipt =
                from.byte() % 4 == 0 ? std::nullopt : std::optional(std::string(from.text()));
            break;
        case 13:
            record.metadata = from.text();
            break;
        case 14:
            record.conflict.count = from.number();
            record.conflict.fingerprints.emplace_back(from.text());
            break;
        case 15:
            record.hold = !record.hold;
            break;
        case 16:
            record.began_ms = time();
            break;
        case 17:
            record.verdict = {dedup::Verdict::Kind{static_cast<std::uint8_t>(from.below(5))},
                              std::string(from.text()), std::string(from.text())};
            break;
        default:
            record.unknown_fields = from.text();
            break;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes = as_text(data, size);
    const auto record = dedup::decode(bytes);
    if (!record) {
        const auto code = record.error().code;
        require(code == dedup::Code::corruption || code == dedup::Code::unsupported_version);
        require(!record.error().message.empty());
        return 0;
    }
    require(dedup::check_record(*record).has_value());
    require(encoded(*record) == bytes);
    std::string again;
    dedup::encode_as(*record, record->sequence, again);
    require(again == bytes);
    return 0;
}

// Lets the default mutation make up the values of a few fields; half of the time, and for whatever
// is not a record, the bytes themselves are mutated.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t size_max, unsigned seed) {
    auto record = dedup::decode(as_text(data, size));
    if (!record || seed % 2 == 0) {
        return LLVMFuzzerMutate(data, size, size_max);
    }
    std::uint8_t values[64];
    for (std::size_t i = 0; i < sizeof values; ++i) {
        values[i] = static_cast<std::uint8_t>((seed * 2654435761U) >> (i % 4 * 8));
        seed = seed * 1664525U + 1013904223U;  // Numerical Recipes' generator
    }
    Input from(values, LLVMFuzzerMutate(values, sizeof values, sizeof values));
    for (std::uint64_t changes = 1 + from.below(3); changes > 0; --changes) {
        change_field(*record, from);
    }
    const std::string bytes = encoded(*record);
    const std::size_t kept = std::min(bytes.size(), size_max);
    std::memcpy(data, bytes.data(), kept);
    return kept;
}
