// --receipt TEXT and --receipt-file FILE, for the commands that store a receipt.
#pragma once

#include <string>

#include "command.hpp"

namespace dedupctl {

struct ReceiptOption {
    std::string text;
    std::string file;

    // Stand in this order in the list of the command's options.
    [[nodiscard]] Option as_text();
    [[nodiscard]] Option as_file();

    // The receipt's bytes; empty if neither option was given. Reads the file to its end, so call it
    // before the store is opened. Throws a Failure if it cannot be read or is larger than a
    // receipt may be.
    [[nodiscard]] std::string read() const;
};

}  // namespace dedupctl
