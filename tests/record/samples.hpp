// Records that between them use every field. Each is also a golden file.
#pragma once

#include <string>
#include <vector>

#include "dedup/record.hpp"

namespace dedup::test {

struct Sample {
    std::string name;
    std::string what;
    Record record;
};

[[nodiscard]] Record minimal_claim();
[[nodiscard]] Record completed_claim();  // with a receipt

// In flight, so that ttl and lease are set too, with every field but the receipt.
[[nodiscard]] Record every_field_in_flight();

[[nodiscard]] std::vector<Sample> samples();

[[nodiscard]] std::string encoded(const Record& record);

}  // namespace dedup::test
