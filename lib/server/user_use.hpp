// What the connections of a user hold, so that no user takes all of it. Of the reactor's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace dedup::server {

struct UserUse {
    std::size_t connections = 0;
    std::size_t under_way = 0;   // requests
    std::size_t held_bytes = 0;  // of these, and of what has come in part
};

// A connection that has logged in.
class UserSeat {
  public:
    UserSeat() = default;
    explicit UserSeat(std::shared_ptr<UserUse> use) : use_(std::move(use)) { ++use_->connections; }
    UserSeat(UserSeat&& other) noexcept : use_(std::move(other.use_)) {}
    UserSeat& operator=(UserSeat&& other) noexcept {
        std::swap(use_, other.use_);
        return *this;
    }
    UserSeat(const UserSeat&) = delete;
    ~UserSeat() {
        if (use_) {
            --use_->connections;
        }
    }
    [[nodiscard]] const std::shared_ptr<UserUse>& use() const { return use_; }

  private:
    std::shared_ptr<UserUse> use_;
};

class UserUses {
  public:
    // Of one user.
    std::size_t connections_max = SIZE_MAX;
    std::size_t requests_max = SIZE_MAX;
    std::size_t bytes_max = SIZE_MAX;

    [[nodiscard]] const std::shared_ptr<UserUse>& of(std::string_view name) {
        const auto found = uses_.find(name);
        return found != uses_.end()
                   ? found->second
                   : uses_.emplace(name, std::make_shared<UserUse>()).first->second;
    }

  private:
    std::map<std::string, std::shared_ptr<UserUse>, std::less<>> uses_;  // of those who logged in
};

}  // namespace dedup::server
