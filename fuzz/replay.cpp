// Feeds files to a fuzz target, so that any compiler can replay a corpus as an ordinary test.
//
//     replay_TARGET FILE-OR-DIRECTORY...
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "input.hpp"

// Called by the mutators of targets, and those by libFuzzer alone.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* /*data*/, std::size_t size,
                                        std::size_t /*size_max*/) {
    return size;
}

namespace {

namespace fs = std::filesystem;

void replay_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw std::runtime_error("cannot open " + path.string());
    }
    std::ostringstream content;
    content << file.rdbuf();
    const std::string bytes = content.str();
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

int replay(const fs::path& path) {
    if (!fs::is_directory(path)) {
        // Named before it runs: a target that finds something aborts.
        std::fprintf(stderr, "%s\n", path.c_str());
        replay_file(path);
        return 1;
    }
    int files = 0;
    for (const auto& entry : fs::directory_iterator(path)) {
        files += replay(entry.path());
    }
    return files;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        int files = 0;
        for (int i = 1; i < argc; ++i) {
            files += replay(argv[i]);
        }
        std::fprintf(stderr, "%d inputs replayed\n", files);
        // A corpus that got lost must not pass for one without findings.
        return files > 0 ? 0 : 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
