// Reading goldens and the worked examples of the documentation.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace dedup::test {

inline std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE_MESSAGE(file.is_open(), path.string());
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// The code block of `markdown` that follows the line "<!-- name -->".
inline std::string code_block(const std::string& markdown, const std::string& name) {
    const std::string mark = "<!-- " + name + " -->\n";
    const std::size_t found = markdown.find(mark);
    REQUIRE_MESSAGE(found != std::string::npos, mark);
    const std::string fence = "```\n";
    const std::size_t begin = markdown.find(fence, found);
    REQUIRE(begin != std::string::npos);
    const std::size_t end = markdown.find(fence, begin + fence.size());
    REQUIRE(end != std::string::npos);
    return markdown.substr(begin + fence.size(), end - begin - fence.size());
}

}  // namespace dedup::test
