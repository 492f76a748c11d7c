#include "output.hpp"

#include <unistd.h>

#include <cerrno>

#include "common/failure.hpp"
#include "common/text.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kBufferBytes = 256 * 1024;

// Removes from `bytes` what was written.
int write_from(int fd, std::string_view& bytes) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(fd, bytes.data(), bytes.size());
        if (written >= 0) {
            bytes.remove_prefix(static_cast<std::size_t>(written));
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

}  // namespace

int write_all(int fd, std::string_view bytes) {
    return write_from(fd, bytes);
}

void Output::write(std::string_view bytes) {
    buffer_ += bytes;
    bytes_given_ += bytes.size();
    if (buffer_.size() >= kBufferBytes) {
        flush();
    }
}

void Output::line(std::string_view text) {
    write(text);
    write("\n");
}

std::string json_line(const Json& value) {
    return json_text(value.dump(-1, ' ', false, Json::error_handler_t::replace)) + "\n";
}

void Output::json(const Json& value) {
    write(json_line(value));
}

void Output::flush() {
    std::string_view rest = buffer_;
    const int error = write_from(fd_, rest);
    bytes_written_ += buffer_.size() - rest.size();
    buffer_.clear();
    if (error == EPIPE) {
        throw Failure{.exit_code = kExitError, .code = "io", .message = ""};
    }
    if (error != 0) {
        throw system_failure("cannot write to standard output", error);
    }
}

void add_bytes(Json& object, const std::string& name, std::string_view bytes) {
    if (is_utf8(bytes)) {
        object[name] = bytes;
    }
    object[name + "_base64"] = base64(bytes);
}

Json time_or_null(std::int64_t time_ms) {
    return time_ms == 0 ? Json(nullptr) : Json(time_ms);
}

}  // namespace dedupctl
