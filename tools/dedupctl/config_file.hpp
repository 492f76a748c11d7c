// Global options from files, for what neither the command line nor the environment says.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "command.hpp"

namespace dedupctl {

inline constexpr std::string_view kFromCommandLine = "command line";

// Where the values of global options came from.
struct Settings {
    // By Option::name: kFromCommandLine, "$" and a variable, or a file; none: the default.
    std::map<std::string_view, std::string> origins;
    struct File {
        std::string path;
        bool is_there = false;
    };
    std::vector<File> files;  // that were looked for
};

// Sets those `options` that have no origin yet, from the file beside the store and from the user's,
// in this order. `store` is what the option of that name goes to.
// Throws a usage Failure that names the file and the line.
void read_config_files(const std::vector<Option>& options, std::string& store, Settings& settings);

}  // namespace dedupctl
