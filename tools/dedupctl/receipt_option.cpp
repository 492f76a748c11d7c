#include "receipt_option.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "common/failure.hpp"
#include "common/file_descriptor.hpp"
#include "common/text.hpp"
#include "common/time_text.hpp"
#include "context.hpp"
#include "dedup/http.hpp"
#include "dedup/record.hpp"

namespace dedupctl {

Option ReceiptOption::as_text() {
    return {.name = "--receipt", .to = &text, .help = "The receipt itself", .type = "TEXT"};
}

Option ReceiptOption::as_file() {
    return {.name = "--receipt-file",
            .to = &file,
            .help = "Read the receipt from FILE, or '-'",
            .type = "FILE",
            .filled = true,
            .excludes = {"--receipt"}};
}

Option ReceiptOption::as_http_status() {
    return {.name = "--http-status",
            .to = &http_status,
            .help = "For a key of http::serve: the receipt is the body of a response, 100 to 599",
            .type = "N",
            .filled = true};
}

Option ReceiptOption::as_http_type() {
    return {.name = "--http-type",
            .to = &http_type,
            .help = "The response's Content-Type",
            .type = "TYPE",
            .filled = true,
            .needs = "--http-status"};
}

std::string ReceiptOption::read() const {
    std::string bytes = read_bytes();
    return http_status.empty() ? bytes : as_response(std::move(bytes));
}

std::string ReceiptOption::as_response(std::string body) const {
    dedup::http::Response response{
        .status = static_cast<int>(parse_number(http_status, "--http-status", 100, 599)),
        .body = std::move(body)};
    if (!http_type.empty()) {
        response.headers.emplace_back("Content-Type", http_type);
    }
    return take(dedup::http::encode_response(response));
}

std::string ReceiptOption::read_bytes() const {
    if (file.empty()) {
        return text;
    }
    const FileDescriptor input = open_for_reading(file);
    std::string receipt;
    std::size_t size = 0;
    while (true) {
        constexpr std::size_t kStepBytes = 64 * 1024;
        receipt.resize(size + kStepBytes);
        const ssize_t got = ::read(input.get(), receipt.data() + size, kStepBytes);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            throw system_failure("cannot read " + escape(file), errno);
        }
        size += static_cast<std::size_t>(got);
        if (size > dedup::kReceiptBytesMax) {
            throw Failure{.exit_code = kExitError,
                          .code = "invalid_argument",
                          .message = fmt::format(
                              "the receipt in {} is larger than {}; nothing was stored\n  keep "
                              "the data elsewhere and store its address as the receipt",
                              file == "-" ? "standard input" : escape(file),
                              human_bytes(dedup::kReceiptBytesMax))};
        }
        if (got == 0) {
            receipt.resize(size);
            return receipt;
        }
    }
}

}  // namespace dedupctl
