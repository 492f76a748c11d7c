// Tables of index files, checked block by block when first touched.
//
// Checking a whole table at every opening would cost as much as the store
// is large, so each 4,096-byte block has a checksum of its own, and a process checks a block once,
// when it first reads from it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

namespace dedup {

inline constexpr std::uint64_t kBlobBlockBytes = 4096;
// So that the data are on a cache line where a blob begins 16 bytes behind one.
inline constexpr std::uint64_t kBlobPadBytes = 48;

// The size of a blob that holds `data_bytes`: padding, data, an XXH3-64 for each block.
[[nodiscard]] std::uint64_t blob_bytes(std::uint64_t data_bytes);

// The checksum of block number `block`, of at most kBlobBlockBytes, in a blob of `owner`: whose it
// is, so that none passes for another.
[[nodiscard]] std::uint64_t blob_checksum(std::string_view bytes, std::uint64_t owner,
                                          std::uint64_t block);

// Which blocks have been checked. A blob never changes.
class CheckedBlocks {
  public:
    explicit CheckedBlocks(std::uint64_t data_bytes);
    // A flag for each block.
    [[nodiscard]] std::atomic<bool>* data() { return checked_.get(); }
    [[nodiscard]] std::uint64_t size() const { return size_; }

  private:
    std::uint64_t size_;
    std::unique_ptr<std::atomic<bool>[]> checked_;
};

// A blob in a mapped file. Any number of threads may read at once.
class CheckedBlob {
  public:
    CheckedBlob() = default;  // without data
    // `blob` must be blob_bytes(data_bytes) long.
    CheckedBlob(std::string_view blob, std::uint64_t data_bytes, std::uint64_t owner,
                std::shared_ptr<CheckedBlocks> checked)
        : blob_(blob),
          data_bytes_(data_bytes),
          owner_(owner),
          checked_(std::move(checked)),
          flags_(checked_->data()) {}

    [[nodiscard]] const char* data() const { return blob_.data() + kBlobPadBytes; }

    // Whether the block that holds the byte at `offset` is intact.
    [[nodiscard]] bool intact(std::uint64_t offset) const {
        const std::uint64_t block = offset / kBlobBlockBytes;
        return flags_[block].load(std::memory_order_relaxed) || check(block);
    }
    // The same for a piece of at most kBlobBlockBytes, which may lie across a border of two blocks.
    [[nodiscard]] bool intact(std::uint64_t offset, std::uint64_t bytes) const {
        return intact(offset) && intact(offset + bytes - 1);
    }
    // Whether all of it is.
    [[nodiscard]] bool intact() const;

  private:
    [[nodiscard]] bool check(std::uint64_t block) const;

    std::string_view blob_;
    std::uint64_t data_bytes_ = 0;
    std::uint64_t owner_ = 0;
    std::shared_ptr<CheckedBlocks> checked_;
    std::atomic<bool>* flags_ = nullptr;  // in checked_
};

}  // namespace dedup
