// Heads on their way to the server and back.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/store.hpp"
#include "postgres/connection.hpp"

namespace dedup::pg {

// Which part of the table a stream is in: what a distributed table is distributed by.
[[nodiscard]] std::int16_t bucket_of(StreamKey stream);

// Expiries to ten minutes, so that a completion mostly does not move its index entry. 0: never.
[[nodiscard]] constexpr std::int64_t expiry_slot(std::int64_t expires_at_ms) {
    return expires_at_ms == 0 ? 0 : expires_at_ms / 600'000 + 1;
}

// What a head counts against Capacity::bytes_max, as the statements compute it.
[[nodiscard]] std::uint64_t head_bytes(const Record& record);

// One append of a batch, with the sequence that it gets.
struct Row {
    const Append* item = nullptr;
    std::int16_t bucket = 0;
    std::uint64_t sequence = 0;
};

// The order in which all clients write, so that no two wait for each other.
[[nodiscard]] bool before(const Row& a, const Row& b);

// The arrays of the insert statement; of the update statement if `expected`.
[[nodiscard]] std::vector<std::string> batch_parameters(std::span<const Row> rows, bool expected);

// The arrays by which heads are looked up. Row i asks for streams[i].
[[nodiscard]] std::vector<std::string> stream_parameters(std::span<const StreamKey> streams);

// Which of the `asked` streams a row is about, as its column says. Errors: corruption.
[[nodiscard]] Result<std::size_t> asked_for(const Table& table, std::size_t row, int column,
                                            std::size_t asked);

// The record in a row of the heads or the scan statement, whose columns begin at 0.
// Errors: corruption.
[[nodiscard]] Result<Record> read_head(const Table& table, std::size_t row);

}  // namespace dedup::pg
