// What the newest appends came to, so that one that comes again is recognised.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace dedup::server {

// A client that has lost its connection does not know what became of the appends that were under
// way, so it sends them again, with the ids that they had: those that were carried out get the
// reply that they got. Bounded: the oldest replies are forgotten, and all with the server's end;
// a client can tell by the token that it was given before whether that matters to it.
// Of the thread that makes the rounds, but for token().
class AppendMemory {
  public:
    // `incarnation` is this server's alone.
    explicit AppendMemory(std::string incarnation) : incarnation_(std::move(incarnation)) {}

    // The reply to the append with this id; null if none is known.
    [[nodiscard]] const std::string* find(const std::string& id) const {
        const auto found = replies_.find(id);
        return found == replies_.end() ? nullptr : &found->second;
    }

    // The first reply to an append stays, whatever a client that gives one id twice is told.
    void remember(const std::string& id, std::string_view reply) {
        const std::size_t bytes = id.size() + reply.size();
        if (!replies_.try_emplace(id, reply).second) {
            return;
        }
        order_.push_back(id);
        bytes_ += bytes;
        remembered_.fetch_add(1, std::memory_order_relaxed);
        while (order_.size() > kRepliesMax || bytes_ > kBytesMax) {
            const auto oldest = replies_.find(order_.front());
            bytes_ -= oldest->first.size() + oldest->second.size();
            replies_.erase(oldest);
            order_.pop_front();
            ++forgotten_;
        }
    }

    // For clients: of now. Any thread.
    [[nodiscard]] std::string token() const {
        return incarnation_ + '.' + std::to_string(remembered_.load(std::memory_order_relaxed));
    }
    // Whether all that was carried out since then is known.
    [[nodiscard]] bool knows_since(std::string_view token) const {
        if (!token.starts_with(incarnation_ + '.')) {
            return false;
        }
        std::uint64_t position = 0;
        for (const char digit : token.substr(incarnation_.size() + 1)) {
            if (digit < '0' || digit > '9' || position > UINT32_MAX * std::uint64_t{1'000'000}) {
                return false;
            }
            position = position * 10 + static_cast<std::uint64_t>(digit - '0');
        }
        return position >= forgotten_;
    }

  private:
    static constexpr std::size_t kRepliesMax = 16 * 1024;
    static constexpr std::size_t kBytesMax = 8 * 1024 * 1024;

    const std::string incarnation_;
    std::unordered_map<std::string, std::string> replies_;  // by id
    std::deque<std::string> order_;                         // of ids, the oldest first
    std::size_t bytes_ = 0;
    std::uint64_t forgotten_ = 0;
    std::atomic<std::uint64_t> remembered_ = 0;  // ever
};

}  // namespace dedup::server
