#include "server/accounts.hpp"

#include <algorithm>
#include <utility>

#include "record/try.hpp"

namespace dedup::server {
namespace {

constexpr std::string_view kName = "default";

}  // namespace

Result<void> Accounts::read() {
    if (!has_file()) {
        return {};
    }
    auto read = DEDUP_TRY(Users::read(path_));
    DEDUP_TRY(check(read, has_password()));
    of_file_ = std::move(read);
    return {};
}

Result<void> Accounts::set_password(std::string_view password) {
    if (with_password_ && has_secret(*with_password_, password)) {
        return {};
    }
    DEDUP_TRY(check(of_file_, true));
    with_password_ = user_with_password(kName, password);
    return {};
}

std::vector<User> Accounts::users() const {
    std::vector<User> all = of_file_;
    if (with_password_) {
        all.push_back(*with_password_);
    }
    return all;
}

Result<void> Accounts::check(const std::vector<User>& of_file, bool password) const {
    if (password && std::ranges::find(of_file, kName, &User::name) != of_file.end()) {
        return std::unexpected(Error{Code::invalid_argument,
                                     "there is a password, which is that of the user 'default', "
                                     "and a user of that name in " +
                                         path_});
    }
    return {};
}

}  // namespace dedup::server
