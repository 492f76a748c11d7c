// The users of a server from where its options have them: a file, and a password.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/users.hpp"

namespace dedup::server {

// One thread at a time.
class Accounts {
  public:
    // `path`, of the file; empty: there is none. Reads nothing yet.
    explicit Accounts(std::string path) : path_(std::move(path)) {}

    [[nodiscard]] bool has_file() const { return !path_.empty(); }
    [[nodiscard]] bool has_password() const { return with_password_.has_value(); }
    // Reads the file, if there is one. What is wrong with it changes nothing.
    [[nodiscard]] Result<void> read();
    // It is that of the user `default`, who may do everything. The same one again leaves that user
    // as it is, so that nobody has to log in again.
    [[nodiscard]] Result<void> set_password(std::string_view password);
    // All of them.
    [[nodiscard]] std::vector<User> users() const;

  private:
    [[nodiscard]] Result<void> check(const std::vector<User>& of_file, bool password) const;

    const std::string path_;
    std::vector<User> of_file_;
    std::optional<User> with_password_;
};

}  // namespace dedup::server
