// --receipt TEXT and --receipt-file FILE, for the commands that store a receipt.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace dedupctl {

struct ReceiptOption {
    std::string text;
    std::string file;

    void add_to(CLI::App& command);

    // The receipt's bytes; empty if neither option was given. Reads the file to its end, so call it
    // before the store is opened. Throws a Failure if it cannot be read or is larger than a
    // receipt may be.
    [[nodiscard]] std::string read() const;
};

}  // namespace dedupctl
