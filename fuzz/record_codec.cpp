// Attacks the record decoder: it must not crash on any input, and what it accepts must encode
// back to the same bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "record/codec.hpp"

namespace {

void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    const auto record = dedup::decode(bytes);
    if (!record) {
        const auto code = record.error().code;
        require(code == dedup::Code::corruption || code == dedup::Code::unsupported_version);
        require(!record.error().message.empty());
        return 0;
    }
    require(dedup::check_record(*record).has_value());
    std::string again;
    dedup::encode(*record, again);
    require(again == bytes);
    again.clear();
    dedup::encode_as(*record, record->sequence, again);
    require(again == bytes);
    return 0;
}
