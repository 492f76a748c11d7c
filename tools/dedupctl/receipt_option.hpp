// --receipt TEXT and --receipt-file FILE, for the commands that store a receipt; and --http-status,
// for those that answer for a program that stores HTTP responses.
#pragma once

#include <string>

#include "command.hpp"

namespace dedupctl {

struct ReceiptOption {
    std::string text;
    std::string file;
    std::string http_status;
    std::string http_type;

    // Stand in this order in the list of the command's options.
    [[nodiscard]] Option as_text();
    [[nodiscard]] Option as_file();
    [[nodiscard]] Option as_http_status();
    [[nodiscard]] Option as_http_type();

    // The receipt's bytes; empty if no option was given. With --http-status they are a response as
    // dedup::http::serve stores it, and the text or file is its body. Reads the file to its end, so
    // call it before the store is opened. Throws a Failure if it cannot be read or is larger than a
    // receipt may be, or if there is no such response.
    [[nodiscard]] std::string read() const;

  private:
    [[nodiscard]] std::string read_bytes() const;
    [[nodiscard]] std::string as_response(std::string body) const;
};

}  // namespace dedupctl
