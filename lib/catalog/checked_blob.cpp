#include "catalog/checked_blob.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "env/bytes.hpp"

namespace dedup {
namespace {

std::uint64_t blocks_in(std::uint64_t data_bytes) {
    return (data_bytes + kBlobBlockBytes - 1) / kBlobBlockBytes;
}

constexpr std::uint64_t kOwnerSpread = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio, odd

// Of a block of a blob's data that are in place.
std::uint64_t block_checksum(const char* data, std::uint64_t data_bytes, std::uint64_t owner,
                             std::uint64_t block) {
    const std::uint64_t start = block * kBlobBlockBytes;
    return blob_checksum({data + start, std::min(kBlobBlockBytes, data_bytes - start)}, owner,
                         block);
}

}  // namespace

// The owner and the block's number are part of its checksum, so that neither blobs nor blocks can
// change places unseen.
std::uint64_t blob_checksum(std::string_view bytes, std::uint64_t owner, std::uint64_t block) {
    return XXH3_64bits_withSeed(bytes.data(), bytes.size(), block ^ (owner * kOwnerSpread));
}

std::uint64_t blob_bytes(std::uint64_t data_bytes) {
    return kBlobPadBytes + data_bytes + blocks_in(data_bytes) * sizeof(std::uint64_t);
}

void finish_blob(char* blob, std::uint64_t data_bytes, std::uint64_t owner) {
    std::memset(blob, 0, kBlobPadBytes);
    const char* data = blob_data(blob);
    char* checksums = blob_data(blob) + data_bytes;
    for (std::uint64_t block = 0; block < blocks_in(data_bytes); ++block) {
        store(checksums + block * sizeof(std::uint64_t),
              block_checksum(data, data_bytes, owner, block));
    }
}

CheckedBlocks::CheckedBlocks(std::uint64_t data_bytes)
    : size_(blocks_in(data_bytes)), checked_(new std::atomic<bool>[size_] {}) {}

bool CheckedBlob::intact() const {
    for (std::uint64_t offset = 0; offset < data_bytes_; offset += kBlobBlockBytes) {
        if (!intact(offset)) {
            return false;
        }
    }
    return true;
}

bool CheckedBlob::check(std::uint64_t block) const {
    const char* checksums = data() + data_bytes_;
    const auto stored = load<std::uint64_t>(checksums + block * sizeof(std::uint64_t));
    if (stored != block_checksum(data(), data_bytes_, owner_, block)) {
        return false;
    }
    flags_[block].store(true, std::memory_order_relaxed);
    return true;
}

}  // namespace dedup
