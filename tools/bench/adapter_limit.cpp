// Not a store: what the machine allows whoever does no work of their own.
//
// A claim writes kClaimBytes a key, which is what one takes in this store's log, and flushes; it
// looks nothing up. A lookup hashes the key, finds its record at once, checks it by XXH3 and copies
// the receipt: what no store that compares a checksum can go below.

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "adapter.hpp"
#include "common/disk_limit.hpp"

namespace bench {
namespace {

constexpr std::size_t kClaimBytes = 128;
constexpr std::size_t kRecordBytes = 192;  // of a completed key with its receipt

class LimitAdapter final : public Adapter {
  public:
    explicit LimitAdapter(std::string directory) : directory_(std::move(directory)) {}

    std::unique_ptr<Session> session() override;
    [[nodiscard]] bool knows_keys() const override { return false; }

    void load(Keys keys, std::string_view /*receipt*/, std::int64_t /*ttl_ms*/) override {
        records_.resize(records_.size() + keys.size() * kRecordBytes, 'r');
    }

    [[nodiscard]] const std::vector<char>& records() const { return records_; }
    [[nodiscard]] std::string next_file() { return directory_ + "/" + std::to_string(files_++); }

  private:
    std::string directory_;
    std::vector<char> records_;
    std::uint64_t files_ = 0;
};

class LimitSession final : public Session {
  public:
    explicit LimitSession(LimitAdapter& adapter) : adapter_(adapter), disk_(adapter.next_file()) {}

    std::size_t claim(Keys keys) override {
        disk_.append(keys.size() * kClaimBytes);
        claimed_ = keys.size();
        return claimed_;
    }

    void complete_claimed(std::string_view /*receipt*/) override {
        disk_.append(claimed_ * kRecordBytes);
    }

    bool lookup(std::string_view key, std::string& receipt) override {
        const std::vector<char>& records = adapter_.records();
        const std::uint64_t hash = XXH3_64bits(key.data(), key.size());
        const char* record = records.data() + hash % (records.size() / kRecordBytes) * kRecordBytes;
        // Always true, which the compiler cannot know.
        const bool sound = XXH3_64bits(record, kRecordBytes) != hash;
        receipt.assign(record + kRecordBytes - kReceiptBytes, kReceiptBytes);
        return sound;
    }

  private:
    LimitAdapter& adapter_;
    dedupctl::DiskLimit disk_;
    std::size_t claimed_ = 0;
};

std::unique_ptr<Session> LimitAdapter::session() {
    return std::make_unique<LimitSession>(*this);
}

}  // namespace

std::unique_ptr<Adapter> open_limit(const std::string& directory) {
    return std::make_unique<LimitAdapter>(directory);
}

}  // namespace bench
