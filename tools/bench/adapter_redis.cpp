// Redis: SET with NX and PX, pipelined, a group at a time.
//
// The server is Debian's, started by servers.py with appendonly yes and appendfsync always, which
// redis.io ("Redis persistence") names as the setting that loses nothing: replies go out once the
// append-only file is flushed, one flush for all commands that arrived together. Keys expire by
// Redis's own PX. A group is a pipeline, not a transaction: MULTI would add work and no promise
// that is compared here. All keys are in memory, and every lookup is a round trip through a Unix
// socket. A load sets appendfsync to everysec and back at its end.

#include <hiredis/hiredis.h>

#include <array>
#include <thread>
#include <utility>
#include <vector>

#include "adapter.hpp"

namespace bench {
namespace {

using Reply = std::unique_ptr<redisReply, decltype(&freeReplyObject)>;

// A completed key's value is 'c' and its receipt, a claimed one's is 'p'.
constexpr std::string_view kClaimed = "p";

class Connection {
  public:
    // Waits for a server that is starting.
    explicit Connection(const std::string& directory) {
        for (int attempt = 0; !connect(directory); ++attempt) {
            if (attempt == kServerAttempts) {
                throw failure("Redis: no server in " + directory);
            }
            std::this_thread::sleep_for(kServerPause);
        }
    }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection() { redisFree(context_); }

    void send(std::span<const std::string_view> words) {
        std::array<const char*, 8> pointers{};
        std::array<std::size_t, 8> lengths{};
        for (std::size_t i = 0; i < words.size(); ++i) {
            pointers[i] = words[i].data();
            lengths[i] = words[i].size();
        }
        if (redisAppendCommandArgv(context_, static_cast<int>(words.size()), pointers.data(),
                                   lengths.data()) != REDIS_OK) {
            throw failure(std::string("Redis: ") + context_->errstr);
        }
    }

    Reply receive() {
        void* reply = nullptr;
        if (redisGetReply(context_, &reply) != REDIS_OK) {
            throw failure(std::string("Redis: ") + context_->errstr);
        }
        Reply owned(static_cast<redisReply*>(reply), freeReplyObject);
        if (owned->type == REDIS_REPLY_ERROR) {
            throw failure(std::string("Redis: ") + owned->str);
        }
        return owned;
    }

    Reply run(std::span<const std::string_view> words) {
        send(words);
        return receive();
    }

  private:
    // False as long as nobody listens, or the server is still reading its file.
    bool connect(const std::string& directory) {
        context_ = redisConnectUnix((directory + "/redis.sock").c_str());
        if (context_ != nullptr && context_->err == 0) {
            const Reply reply(static_cast<redisReply*>(redisCommand(context_, "PING")),
                              freeReplyObject);
            if (reply && reply->type == REDIS_REPLY_STATUS) {
                return true;
            }
        }
        redisFree(std::exchange(context_, nullptr));
        return false;
    }

    redisContext* context_ = nullptr;
};

std::string as_value(std::string_view receipt) {
    return std::string("c").append(receipt);
}

class RedisSession final : public Session {
  public:
    explicit RedisSession(const std::string& directory) : connection_(directory) {}

    std::size_t claim(Keys keys) override {
        claimed_.clear();
        for (const std::string_view key : keys) {
            connection_.send(
                std::array<std::string_view, 6>{"SET", key, kClaimed, "NX", "PX", ttl_});
        }
        for (const std::string_view key : keys) {
            if (connection_.receive()->type == REDIS_REPLY_STATUS) {
                claimed_.emplace_back(key);
            }
        }
        return claimed_.size();
    }

    void complete_claimed(std::string_view receipt) override {
        const std::string value = as_value(receipt);
        for (const std::string_view key : claimed_) {
            connection_.send(std::array<std::string_view, 6>{"SET", key, value, "XX", "PX", ttl_});
        }
        for (std::size_t i = 0; i < claimed_.size(); ++i) {
            connection_.receive();
        }
    }

    bool lookup(std::string_view key, std::string& receipt) override {
        return lookup_many({&key, 1}, receipt) == 1;
    }

    std::size_t lookup_many(Keys keys, std::string& receipt) override {
        for (const std::string_view key : keys) {
            connection_.send(std::array<std::string_view, 2>{"GET", key});
        }
        std::size_t completed = 0;
        for (std::size_t i = 0; i < keys.size(); ++i) {
            const Reply reply = connection_.receive();
            if (reply->type == REDIS_REPLY_STRING && reply->str[0] == 'c') {
                receipt.assign(reply->str + 1, reply->len - 1);
                ++completed;
            }
        }
        return completed;
    }

  private:
    Connection connection_;
    std::string ttl_ = std::to_string(kTtlMs);
    std::vector<std::string> claimed_;
};

class RedisAdapter final : public Adapter {
  public:
    explicit RedisAdapter(std::string directory)
        : directory_(std::move(directory)), connection_(directory_) {}

    std::unique_ptr<Session> session() override {
        return std::make_unique<RedisSession>(directory_);
    }

    void load(Keys keys, std::string_view receipt, std::int64_t ttl_ms) override {
        flush_policy("everysec");
        const std::string value = as_value(receipt);
        const std::string ttl = std::to_string(ttl_ms);
        for (const std::string_view key : keys) {
            connection_.send(std::array<std::string_view, 5>{"SET", key, value, "PX", ttl});
        }
        for (std::size_t i = 0; i < keys.size(); ++i) {
            connection_.receive();
        }
    }
    void loaded() override { flush_policy("always"); }

  private:
    void flush_policy(std::string_view policy) {
        connection_.run(std::array<std::string_view, 4>{"CONFIG", "SET", "appendfsync", policy});
    }

    std::string directory_;
    Connection connection_;
};

}  // namespace

std::unique_ptr<Adapter> open_redis(const std::string& directory) {
    return std::make_unique<RedisAdapter>(directory);
}

}  // namespace bench
