// Memory runs out, at each allocation of each operation in turn: that one fails, or it and all
// behind it until the operation is over. Whatever fails, every caller gets an answer, the process
// lives, the store goes on or refuses writes, and when it is opened again what was acknowledged is
// there, and what was refused is not.
//
// Each life is a process of its own, on a copy of one store: so one that hangs or is ended is seen,
// and says nothing about the next.

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>

#include "memory/scenarios.hpp"
#include "support/child_process.hpp"
#include "support/environment.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kHangSeconds = 30;

struct Seen {
    std::uint64_t counted = 0;
    std::uint64_t failed = 0;
};

// How a life ends in which allocations `first` to `last` fail: 0 if all holds.
int live(const Scenario& scenario, const fs::path& path, std::uint64_t first, std::uint64_t last,
         Seen& seen) {
    return exit_code(in_child([&]() noexcept {
        alarm(kHangSeconds);
        Life life(path);
        scenario.prepare(life);
        {
            const FailingAllocations failing(scenario.whose, first, last);
            scenario.run(life);
            seen = {FailingAllocations::counted(), FailingAllocations::failed()};
        }
        life.check();
        return 0;
    }));
}

class Lives {
  public:
    explicit Lives(const Scenario& scenario)
        : scenario_(scenario), directory_(fast_directory()), start_(directory_.path() / "start") {
        const int code = exit_code(in_child([&]() noexcept {
            Life life(start_);
            scenario.begin(life);
            return 0;
        }));
        REQUIRE(code == 0);
    }

    // How many allocations there are when none fails.
    [[nodiscard]] std::uint64_t count() {
        REQUIRE(run(UINT64_MAX, UINT64_MAX) == 0);
        return seen_->counted;
    }

    int run(std::uint64_t first, std::uint64_t last) {
        const fs::path path = directory_.path() / "life";
        fs::remove_all(path);
        if (fs::exists(start_)) {
            fs::copy(start_, path, fs::copy_options::recursive);
        }
        return live(scenario_, path, first, last, *seen_);
    }

  private:
    const Scenario& scenario_;
    TempDir directory_;
    fs::path start_;
    Shared<Seen> seen_;
};

TEST_CASE("memory that runs out costs an answer at most") {
    // Of each operation, spread evenly; 0: all of them.
    const std::uint64_t points = number_from_environment("DEDUP_MEMORY_POINTS", 4);
    const char* only = std::getenv("DEDUP_MEMORY_SCENARIO");
    for (const Scenario& scenario : scenarios()) {
        if (only != nullptr && std::string(only) != scenario.name) {
            continue;
        }
        const std::string name = scenario.name;
        INFO(name);
        Lives lives(scenario);
        const std::uint64_t allocations = lives.count();
        const std::uint64_t step =
            points == 0 ? 1 : std::max<std::uint64_t>(1, (allocations + points - 1) / points);
        std::uint64_t runs = 0;
        for (std::uint64_t first = 1; first <= allocations; first += step) {
            for (const std::uint64_t last : {first, UINT64_MAX}) {
                const int code = lives.run(first, last);
                ++runs;
                CHECK_MESSAGE(code == 0,
                              name << ": allocation " << first
                                   << std::string(last == first ? "" : " and all behind it")
                                   << " of " << allocations << ": ended with " << code);
            }
        }
        MESSAGE(name << ": " << allocations << " allocations, " << runs << " lives");
    }
}

}  // namespace
}  // namespace dedup::test
