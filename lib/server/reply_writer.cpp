#include "server/reply_writer.hpp"

#include <algorithm>

#include "wire/error_word.hpp"

namespace dedup::server {
void ReplyWriter::error(const Error& error) {
    line('-', wire::error_word(error.code) + ' ' + error.message);
}

void ReplyWriter::bulk(std::string_view bytes) {
    head('$', bytes.size());
    out_ += bytes;
    out_ += "\r\n";
}

// Text from outside must not end the line early and have its rest taken for another reply.
void ReplyWriter::line(char mark, std::string_view text) {
    out_ += mark;
    const std::size_t begin = out_.size();
    out_ += text;
    std::replace_if(
        out_.begin() + static_cast<std::ptrdiff_t>(begin), out_.end(),
        [](char byte) { return byte == '\r' || byte == '\n'; }, ' ');
    out_ += "\r\n";
}

void MapWriter::add_to(std::string& out) const {
    ReplyWriter(out, protocol_).map(pairs_);
    out += body_;
}

}  // namespace dedup::server
