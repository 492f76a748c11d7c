// Which names a stream can have.
#pragma once

#include "dedup/record.hpp"
#include "dedup/store.hpp"

namespace dedup {

[[nodiscard]] inline Result<void> check_stream(StreamKey stream) {
    if (auto checked = check_namespace(stream.ns); !checked) {
        return checked;
    }
    return check_key(stream.key);
}

}  // namespace dedup
