#include "index/checked_blob.hpp"

#include <xxhash.h>

#include <algorithm>

#include "env/bytes.hpp"

namespace dedup {
namespace {

std::uint64_t blocks_in(std::uint64_t data_bytes) {
    return (data_bytes + kBlobBlockBytes - 1) / kBlobBlockBytes;
}

constexpr std::uint64_t kOwnerSpread = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio, odd

}  // namespace

// The owner and the block's number are part of its checksum, so that neither blobs nor blocks can
// change places unseen.
std::uint64_t blob_checksum(std::string_view bytes, std::uint64_t owner, std::uint64_t block) {
    return XXH3_64bits_withSeed(bytes.data(), bytes.size(), block ^ (owner * kOwnerSpread));
}

std::uint64_t blob_bytes(std::uint64_t data_bytes) {
    return kBlobPadBytes + data_bytes + blocks_in(data_bytes) * sizeof(std::uint64_t);
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
    const std::uint64_t start = block * kBlobBlockBytes;
    const std::string_view bytes(data() + start, std::min(kBlobBlockBytes, data_bytes_ - start));
    if (stored != blob_checksum(bytes, owner_, block)) {
        return false;
    }
    flags_[block].store(true, std::memory_order_relaxed);
    return true;
}

}  // namespace dedup
