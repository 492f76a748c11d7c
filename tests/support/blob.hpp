// Checked blobs in memory, as index files have them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "env/bytes.hpp"
#include "index/checked_blob.hpp"
#include "index/sealed_index.hpp"

namespace dedup::test {

inline std::string make_blob(std::string_view data, std::uint64_t owner) {
    std::string blob(kBlobPadBytes, '\0');
    blob += data;
    for (std::uint64_t block = 0; block * kBlobBlockBytes < data.size(); ++block) {
        blob.resize(blob.size() + sizeof(std::uint64_t));
        store(blob.data() + blob.size() - sizeof(std::uint64_t),
              blob_checksum(data.substr(block * kBlobBlockBytes, kBlobBlockBytes), owner, block));
    }
    return blob;
}

// The data of an index. `entries` are sorted by id.
inline std::string index_data(std::span<const IndexEntry> entries) {
    std::string data(entries.size_bytes(), '\0');
    if (!entries.empty()) {
        std::memcpy(data.data(), entries.data(), entries.size_bytes());
    }
    return data + index_fences(entries);
}

}  // namespace dedup::test
