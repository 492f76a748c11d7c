#include "server/users.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <utility>

#include "dedup/record.hpp"
#include "dedup/server.hpp"
#include "record/sha256.hpp"
#include "server/secret.hpp"

namespace dedup::server {
namespace {

constexpr std::size_t kUserNameMax = 64;
constexpr std::size_t kHashDigits = 64;

constexpr std::array<std::pair<std::string_view, Right>, 6> kRights = {{{"read", kMayRead},
                                                                        {"claim", kMayClaim},
                                                                        {"complete", kMayComplete},
                                                                        {"sweep", kMaySweep},
                                                                        {"admin", kMayAdmin},
                                                                        {"all", kMayAll}}};

std::unexpected<Error> not_so(std::string what) {
    return std::unexpected(Error{.code = Code::invalid_argument, .message = std::move(what)});
}

bool consists_of(std::string_view text, std::string_view known) {
    return text.find_first_not_of(known) == std::string_view::npos;
}

std::vector<std::string_view> split(std::string_view text, std::string_view marks) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const std::size_t at = std::min(text.find_first_of(marks), text.size());
        if (at != 0) {
            parts.push_back(text.substr(0, at));
        }
        text.remove_prefix(std::min(at + 1, text.size()));
    }
    return parts;
}

Result<void> check_user_name(std::string_view name) {
    constexpr std::string_view kKnown =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (name.empty() || name.size() > kUserNameMax || !consists_of(name, kKnown)) {
        return not_so(fmt::format("a user's name is 1 to {} of: letters, digits, '.', '_', '-'",
                                  kUserNameMax));
    }
    return {};
}

Result<unsigned> parse_rights(std::string_view text) {
    unsigned rights = 0;
    for (const std::string_view word : split(text, ",")) {
        const auto* const known =
            std::ranges::find(kRights, word, &decltype(kRights)::value_type::first);
        if (known == kRights.end()) {
            return not_so(
                fmt::format("'{}' is no right; they are read, claim, complete, sweep, "
                            "admin, all",
                            word.substr(0, 32)));
        }
        rights |= known->second;
    }
    return rights;
}

Result<std::vector<std::string>> parse_namespaces(std::string_view text) {
    std::vector<std::string> namespaces;
    for (const std::string_view word : split(text, ",")) {
        std::string_view name = word;
        const bool prefix = name.ends_with('*');
        name.remove_suffix(prefix ? 1 : 0);
        if (name.find_first_of("* \t\r\n") != std::string_view::npos) {
            return not_so(
                fmt::format("'{}' is no namespace: it has a space, or a '*' before its end",
                            word.substr(0, 64)));
        }
        if (auto checked = prefix && name.empty() ? Result<void>() : check_namespace(name);
            !checked) {
            return std::unexpected(std::move(checked).error());
        }
        namespaces.emplace_back(word);
    }
    return namespaces;
}

Result<User> parse_user(std::string_view line) {
    User user;
    bool has_rights = false;
    bool has_namespaces = false;
    const auto words = split(line, " \t");
    if (words.size() < 2) {
        return not_so("a line is NAME sha256:SALT:HASH rights=... namespaces=...");
    }
    user.name = words[0];
    if (auto checked = check_user_name(user.name); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    const auto secret = split(words[1], ":");
    constexpr std::string_view kHex = "0123456789abcdef";
    if (secret.size() != 3 || secret[0] != "sha256" || secret[2].size() != kHashDigits ||
        !consists_of(secret[1], kHex) || !consists_of(secret[2], kHex)) {
        return not_so("the secret is not sha256:SALT:HASH; `dedupctl user` makes such a line");
    }
    user.salt = secret[1];
    user.hash = secret[2];
    for (std::size_t i = 2; i < words.size(); ++i) {
        const std::string_view value =
            words[i].substr(std::min(words[i].find('='), words[i].size() - 1) + 1);
        if (words[i].starts_with("rights=") && !std::exchange(has_rights, true)) {
            auto rights = parse_rights(value);
            if (!rights) {
                return std::unexpected(std::move(rights).error());
            }
            user.rights = *rights;
        } else if (words[i].starts_with("namespaces=") && !std::exchange(has_namespaces, true)) {
            auto namespaces = parse_namespaces(value);
            if (!namespaces) {
                return std::unexpected(std::move(namespaces).error());
            }
            user.namespaces = *std::move(namespaces);
        } else {
            return not_so(fmt::format("'{}' is unknown, or comes twice", words[i].substr(0, 64)));
        }
    }
    return user;
}

std::string random_hex(int words) {
    std::random_device random;
    std::string digits;
    for (int i = 0; i < words; ++i) {
        digits += fmt::format("{:08x}", random());
    }
    return digits;
}

}  // namespace

bool User::may_in(std::string_view ns) const {
    return std::ranges::any_of(namespaces, [ns](std::string_view allowed) {
        return allowed.ends_with('*') ? ns.starts_with(allowed.substr(0, allowed.size() - 1))
                                      : ns == allowed;
    });
}

bool User::may_everywhere() const {
    return std::ranges::find(namespaces, "*") != namespaces.end();
}

bool User::covers(const User& other) const {
    return may(other.rights) && std::ranges::all_of(other.namespaces, [this](std::string_view ns) {
               return may_in(ns);  // also of one that ends with "*"
           });
}

Result<std::vector<User>> Users::parse(std::string_view text) {
    std::vector<User> users;
    for (std::size_t number = 1; !text.empty(); ++number) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (split(line, " \t\r").empty() || line.starts_with('#')) {
            continue;
        }
        auto user = parse_user(line.substr(0, line.find('\r')));
        if (user && std::ranges::find(users, user->name, &User::name) != users.end()) {
            user = not_so(fmt::format("there is a user '{}' already", user->name));
        }
        if (!user) {
            return not_so(fmt::format("line {}: {}", number, user.error().message));
        }
        users.push_back(*std::move(user));
    }
    if (users.empty()) {
        return not_so("there is no user in it");
    }
    return users;
}

Result<std::vector<User>> Users::read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string text;
    // Iterators on the file would throw where the disk fails.
    for (std::array<char, 4096> piece;
         file.read(piece.data(), piece.size()) || file.gcount() > 0;) {
        text.append(piece.data(), static_cast<std::size_t>(file.gcount()));
    }
    if (!file.is_open() || file.bad()) {
        return std::unexpected(Error{
            .code = Code::io,
            .message = fmt::format("cannot read the users from {}: {}", path, std::strerror(errno)),
            .os_error = errno});
    }
    auto users = parse(text);
    return users ? std::move(users)
                 : not_so(fmt::format("users in {}: {}", path, users.error().message));
}

void Users::replace(std::vector<User> users) {
    const MutexLock lock(mutex_);
    users_.clear();
    for (User& user : users) {
        std::string name = user.name;
        users_.emplace(std::move(name), std::make_shared<const User>(std::move(user)));
    }
    needed_ = !users_.empty();
    ++generation_;
}

UserPtr Users::login(std::string_view name, std::string_view secret) const {
    static const UserPtr kNobody = std::make_shared<const User>(
        User{.name = "", .salt = random_hex(4), .hash = random_hex(8), .namespaces = {}});
    UserPtr user = kNobody;
    {
        const MutexLock lock(mutex_);
        if (const auto found = users_.find(name); found != users_.end()) {
            user = found->second;
        }
    }
    return has_secret(*user, secret) && user != kNobody ? user : nullptr;
}

UserPtr Users::named(std::string_view name) const {
    const MutexLock lock(mutex_);
    const auto found = users_.find(name);
    return found == users_.end() ? nullptr : found->second;
}

UserPtr Users::now(const UserPtr& user) const {
    const MutexLock lock(mutex_);
    const auto found = users_.find(user->name);
    return found != users_.end() && found->second->hash == user->hash ? found->second : nullptr;
}

std::string missing_rights(const User& user, unsigned wanted) {
    std::string names;
    for (const auto& [name, right] : kRights) {
        if (right != kMayAll && (wanted & ~user.rights & right) != 0) {
            names += (names.empty() ? "" : ",") + std::string(name);
        }
    }
    return fmt::format(
        "'{}' lacks {}, which its line in the file of users would have in rights= "
        "(see `dedupctl user`)",
        user.name, names);
}

bool has_secret(const User& user, std::string_view secret) {
    return same_secret(sha256_hex(user.salt + std::string(secret)), user.hash);
}

User user_with_password(std::string_view name, std::string_view password) {
    User user{.name = std::string(name),
              .salt = random_hex(4),
              .hash = {},
              .rights = kMayAll,
              .namespaces = {"*"}};
    user.hash = sha256_hex(user.salt + std::string(password));
    return user;
}

}  // namespace dedup::server

namespace dedup {

Result<std::string> user_line(const ServerUser& user) {
    using namespace server;
    if (auto checked = check_user_name(user.name); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    if (!has_secret_length(user.secret)) {
        return not_so(fmt::format("a secret has {} to {} bytes; make one up at random", kSecretMin,
                                  kSecretMax));
    }
    if (auto rights = parse_rights(user.rights); !rights) {
        return std::unexpected(std::move(rights).error());
    }
    if (auto namespaces = parse_namespaces(user.namespaces); !namespaces) {
        return std::unexpected(std::move(namespaces).error());
    }
    const User hashed = user_with_password(user.name, user.secret);
    return fmt::format("{} sha256:{}:{} rights={} namespaces={}", hashed.name, hashed.salt,
                       hashed.hash, user.rights, user.namespaces);
}

std::string random_secret() {
    return server::random_hex(5);
}

}  // namespace dedup
