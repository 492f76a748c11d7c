// Which names a stream can have.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "dedup/record.hpp"
#include "dedup/store.hpp"

namespace dedup {

[[nodiscard]] inline Result<void> check_stream(StreamKey stream) {
    if (auto checked = check_namespace(stream.ns); !checked) {
        return checked;
    }
    return check_key(stream.key);
}

// The streams of a call of heads() that a server can be asked for.
struct AskedStreams {
    std::vector<StreamKey> streams = {};
    std::vector<std::size_t> places = {};  // of each in the call
};

// The other streams' errors go into `heads`, which has a place for each of the call.
[[nodiscard]] inline AskedStreams asked_streams(std::span<const StreamKey> streams,
                                                std::span<Result<std::optional<Record>>> heads) {
    AskedStreams asked;
    for (std::size_t i = 0; i < streams.size(); ++i) {
        if (auto checked = check_stream(streams[i]); checked) {
            asked.streams.push_back(streams[i]);
            asked.places.push_back(i);
        } else {
            heads[i] = std::unexpected(std::move(checked).error());
        }
    }
    return asked;
}

}  // namespace dedup
