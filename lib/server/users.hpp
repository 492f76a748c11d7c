// Who may do what: the users of a server, from a file of lines
//
//     NAME sha256:SALT:HASH rights=read,claim namespaces=orders,pay-*
//
// HASH is SHA-256 of the salt's text and the secret, in hex. Secrets are long and random
// (user_line sees to it), so that one hash will do: a slow one would let everybody who may connect
// stop the server, which checks them between two requests of others.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/error.hpp"
#include "env/mutex.hpp"

namespace dedup::server {

// Of a secret, a password, a token. They are not to be guessed, and have to fit into what may be
// said before they are checked.
inline constexpr std::size_t kSecretMin = 16;
inline constexpr std::size_t kSecretMax = 512;
[[nodiscard]] constexpr bool has_secret_length(std::string_view secret) {
    return secret.size() >= kSecretMin && secret.size() <= kSecretMax;
}

enum Right : unsigned {
    kMayRead = 1,      // what is stored, receipts included
    kMayClaim = 2,     // claim, renew, release, note, hold
    kMayComplete = 4,  // complete
    kMaySweep = 8,     // remove what has expired
    kMayAdmin = 16,    // decide for others, write records as they are
    kMayAll = 31,
};

struct User {
    std::string name;
    std::string salt;
    std::string hash;
    unsigned rights = 0;
    std::vector<std::string> namespaces;  // exact names, or what they begin with and "*"

    [[nodiscard]] bool may(unsigned wanted) const { return (rights & wanted) == wanted; }
    [[nodiscard]] bool may_in(std::string_view ns) const;
    [[nodiscard]] bool may_everywhere() const;
    // Whether it may do all that the other may.
    [[nodiscard]] bool covers(const User& other) const;
};

using UserPtr = std::shared_ptr<const User>;

// Any thread may call any of these.
class Users {
  public:
    // Of the lines of a file. The error names the line.
    [[nodiscard]] static Result<std::vector<User>> parse(std::string_view text);
    // Errors: io, and those of parse.
    [[nodiscard]] static Result<std::vector<User>> read(const std::string& path);

    // Nobody has to log in until there is a user.
    Users() = default;

    [[nodiscard]] bool needed() const { return needed_; }
    void replace(std::vector<User> users) DEDUP_EXCLUDES(mutex_);
    // Null: no such user, or another secret. Which of them, nobody can tell, nor by the time.
    [[nodiscard]] UserPtr login(std::string_view name, std::string_view secret) const
        DEDUP_EXCLUDES(mutex_);
    // Null: no such user. For whoever has shown otherwise that that is him.
    [[nodiscard]] UserPtr named(std::string_view name) const DEDUP_EXCLUDES(mutex_);
    // Rises with each replace().
    [[nodiscard]] std::uint64_t generation() const { return generation_; }
    // What `user` has become: null if it has gone, or has another secret.
    [[nodiscard]] UserPtr now(const UserPtr& user) const DEDUP_EXCLUDES(mutex_);

  private:
    std::atomic<bool> needed_ = false;
    std::atomic<std::uint64_t> generation_ = 0;
    mutable Mutex mutex_;
    std::map<std::string, UserPtr, std::less<>> users_ DEDUP_GUARDED_BY(mutex_);
};

// For people: which of `wanted` the user does not have, and where they come from.
[[nodiscard]] std::string missing_rights(const User& user, unsigned wanted);
// Whether that is its secret. Takes as long whatever it is.
[[nodiscard]] bool has_secret(const User& user, std::string_view secret);
// A user with all rights that has this secret.
[[nodiscard]] User user_with_password(std::string_view name, std::string_view password);

}  // namespace dedup::server
