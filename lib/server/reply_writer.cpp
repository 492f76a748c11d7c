#include "server/reply_writer.hpp"

#include <algorithm>

namespace dedup::server {
namespace {

// Clients know some codes by their first word and throw what is fitting.
std::string code_word(Code code) {
    if (code == Code::invalid_argument) {
        return "ERR";
    }
    if (code == Code::read_only) {
        return "READONLY";
    }
    if (code == Code::out_of_space) {
        return "OOM";
    }
    std::string word(name(code));
    std::ranges::transform(word, word.begin(), [](char byte) {
        return byte >= 'a' && byte <= 'z' ? static_cast<char>(byte - 'a' + 'A') : byte;
    });
    return word;
}

}  // namespace

void ReplyWriter::error(const Error& error) {
    line('-', code_word(error.code) + ' ' + error.message);
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
