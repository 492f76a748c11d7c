#include "secret_file.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "common/failure.hpp"

namespace dedupctl {

std::string read_secret(const std::string& path, std::string_view option) {
    std::ifstream file(path, std::ios::binary);
    std::string password;
    if (!file || (!std::getline(file, password) && !file.eof())) {
        throw Failure{
            .exit_code = kExitError,
            .code = "io",
            .message = fmt::format("{}: cannot read {}: {}", option, path, std::strerror(errno))};
    }
    if (password.ends_with('\r')) {  // an editor of another system wrote it
        password.pop_back();
    }
    if (password.empty()) {
        throw usage_failure(fmt::format("{}: the first line of {} is empty", option, path));
    }
    return password;
}

}  // namespace dedupctl
