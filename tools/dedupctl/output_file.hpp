#pragma once

#include <string>

#include "common/file_descriptor.hpp"

namespace dedupctl {

// A file that gets its name once it is whole and on the disk, so that there is never half of it
// under that name. "-" is standard output, and a device is written to as it is.
class OutputFile {
  public:
    explicit OutputFile(const std::string& path);
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;
    ~OutputFile();

    [[nodiscard]] int fd() const { return file_.get(); }

    void finish();

  private:
    std::string path_;
    std::string unfinished_;
    FileDescriptor file_;
};

}  // namespace dedupctl
