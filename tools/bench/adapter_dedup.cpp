// This store, with its defaults: Durability::sync, segments as large as it likes. And the same on
// PostgreSQL, whose server has the settings that stand in peers.py.

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "adapter.hpp"
#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"
#include "dedup/postgres_store.hpp"

namespace bench {
namespace {

using dedupctl::library_failure;
using dedupctl::take;

class DedupSession final : public Session {
  public:
    explicit DedupSession(dedup::Cache& cache) : cache_(cache) {}

    std::size_t claim(Keys keys) override {
        completions_.clear();
        if (keys.size() == 1) {
            keep(cache_.claim(keys.front()));
            return completions_.size();
        }
        requests_.resize(keys.size());
        for (std::size_t i = 0; i < keys.size(); ++i) {
            requests_[i].key = keys[i];
        }
        for (auto& outcome : cache_.claim_many(requests_)) {
            keep(std::move(outcome));
        }
        return completions_.size();
    }

    void complete_claimed(std::string_view receipt) override {
        for (dedup::Completion& completion : completions_) {
            completion.receipt = receipt;
        }
        for (const auto& done : cache_.complete_many(completions_)) {
            take(done);
        }
    }

    bool lookup(std::string_view key, std::string& receipt) override {
        auto found = take(cache_.lookup(key));
        auto* completed = std::get_if<dedup::Completed>(&found);
        if (completed == nullptr) {
            return false;
        }
        receipt = std::move(completed->receipt);
        return true;
    }

    std::size_t lookup_many(Keys keys, std::string& receipt) override {
        std::size_t completed = 0;
        for (auto& found : cache_.lookup_many(keys)) {
            auto outcome = take(std::move(found));
            if (auto* known = std::get_if<dedup::Completed>(&outcome)) {
                receipt = std::move(known->receipt);
                ++completed;
            }
        }
        return completed;
    }

  private:
    void keep(dedup::Result<dedup::ClaimOutcome> result) {
        dedup::ClaimOutcome outcome = take(std::move(result));
        if (auto* claimed = std::get_if<dedup::Claimed>(&outcome)) {
            completions_.push_back(
                {.claim = std::move(claimed->claim), .receipt = {}, .options = {}});
        }
    }

    dedup::Cache& cache_;
    std::vector<dedup::ClaimRequest> requests_;
    std::vector<dedup::Completion> completions_;
};

class DedupAdapter final : public Adapter {
  public:
    explicit DedupAdapter(std::unique_ptr<dedup::StreamStore> store)
        : store_(std::move(store)), cache_(*store_) {}

    std::unique_ptr<Session> session() override { return std::make_unique<DedupSession>(cache_); }

    void load(Keys keys, std::string_view receipt, std::int64_t ttl_ms) override {
        std::vector<dedup::RememberRequest> requests(keys.size());
        for (std::size_t i = 0; i < keys.size(); ++i) {
            requests[i].key = keys[i];
            requests[i].receipt = receipt;
            requests[i].options.ttl = std::chrono::milliseconds(ttl_ms);
        }
        for (auto& outcome : cache_.remember_many(requests)) {
            if (!std::holds_alternative<dedup::New>(take(std::move(outcome)))) {
                throw failure("a key that was to be loaded is known");
            }
        }
    }

    std::uint64_t sweep(std::int64_t ahead_ms) override {
        dedup::SweepOptions options;
        options.now_ms = store_->now_ms() + ahead_ms;
        const dedup::SweepReport report = take(store_->sweep(options));
        if (!report.finished) {
            throw failure("the sweep did not finish");
        }
        return report.removed.total();
    }

    void tidy() override {
        dedup::SweepOptions options;
        options.compact = true;
        take(store_->sweep(options));
    }

  private:
    std::unique_ptr<dedup::StreamStore> store_;
    dedup::Cache cache_;
};

}  // namespace

std::unique_ptr<Adapter> open_dedup(const std::string& directory) {
    return std::make_unique<DedupAdapter>(take(dedup::open(directory + "/store")));
}

std::unique_ptr<Adapter> open_dedup_postgres(const std::string& directory) {
    const std::string url = "postgresql:///postgres?user=postgres&host=" + directory;
    for (int attempt = 1;; ++attempt) {
        const auto made = dedup::init_postgres(url);
        if (made) {
            break;
        }
        if (attempt == kServerAttempts || made.error().code != dedup::Code::unavailable) {
            throw library_failure(made.error());
        }
        std::this_thread::sleep_for(kServerPause);
    }
    return std::make_unique<DedupAdapter>(take(dedup::open(url)));
}

}  // namespace bench
