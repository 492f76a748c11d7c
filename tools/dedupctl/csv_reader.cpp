#include "csv_reader.hpp"

namespace dedupctl {

int CsvReader::peek() {
    while (at_ == piece_.size() && !ended_) {
        at_ = 0;
        piece_.clear();
        ended_ = !read_(piece_);
    }
    return at_ == piece_.size() ? kEnd : static_cast<unsigned char>(piece_[at_]);
}

int CsvReader::take() {
    const int c = peek();
    if (c != kEnd) {
        ++at_;
        line_ += c == '\n';
    }
    return c;
}

void CsvReader::fail(const char* why) {
    if (error_.empty()) {
        error_ = why;
    }
}

void CsvReader::append(std::string& field, int c) {
    if (++row_bytes_ > row_bytes_max_) {
        fail("the row is longer than any record; is there a quote that is not closed?");
        return;
    }
    field += static_cast<char>(c);
}

void CsvReader::read_quoted(std::string& field) {
    take();
    while (true) {
        const int c = take();
        if (c == kEnd) {
            fail("a quote is not closed");
            return;
        }
        if (c != '"') {
            append(field, c);
        } else if (peek() == '"') {
            append(field, take());
        } else {
            return;
        }
    }
}

// False: the row ends behind this field.
bool CsvReader::read_field(std::string& field) {
    const bool quoted = peek() == '"';
    if (quoted) {
        read_quoted(field);
    }
    while (true) {
        const int c = take();
        if (c == ',') {
            return true;
        }
        if (c == kEnd || c == '\n') {
            return false;
        }
        if (c == '\r' && (peek() == '\n' || peek() == kEnd)) {
            continue;
        }
        if (quoted) {
            fail("there is text behind a closing quote");
        } else if (c == '"') {
            fail("a quote is in the middle of a field; put the field in quotes and double it");
        }
        append(field, c);
    }
}

bool CsvReader::next(std::vector<std::string>& fields) {
    while (peek() == '\n' || peek() == '\r') {
        take();
    }
    fields.clear();
    error_.clear();
    row_bytes_ = 0;
    row_line_ = line_;
    if (peek() == kEnd) {
        return false;
    }
    while (read_field(fields.emplace_back())) {
    }
    return true;
}

}  // namespace dedupctl
