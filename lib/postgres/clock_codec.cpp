#include "postgres/clock_codec.hpp"

#include "catalog/value_codec.hpp"

namespace dedup::pg {

std::string encode_jumps(const ClockHistory& history) {
    ValueWriter writer;
    writer.number(history.jumps.size());
    for (const ClockJump& jump : history.jumps) {
        writer.signed_number(jump.from_ms);
        writer.signed_number(jump.to_ms);
        writer.number(jump.sequence);
        writer.number(jump.settled ? 1 : 0);
    }
    return writer.finish();
}

Result<ClockHistory> decode_jumps(std::string_view bytes) {
    ClockHistory history;
    if (bytes.empty()) {
        return history;
    }
    ValueReader reader(bytes);
    for (std::uint64_t left = reader.number(); left > 0 && reader.good(); --left) {
        ClockJump& jump = history.jumps.emplace_back();
        jump.from_ms = reader.signed_number();
        jump.to_ms = reader.signed_number();
        jump.sequence = reader.number();
        jump.settled = reader.number() != 0;
    }
    if (!reader.finished()) {
        return std::unexpected(
            Error{Code::corruption,
                  "the clock's history in the database is not intact; set meta's "
                  "clock to '' to forget it"});
    }
    return history;
}

}  // namespace dedup::pg
