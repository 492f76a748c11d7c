#include "receipt_option.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "common/failure.hpp"
#include "common/file_descriptor.hpp"
#include "common/text.hpp"
#include "context.hpp"
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

std::string ReceiptOption::read() const {
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
