// The items of a dump for people.
#pragma once

#include <string_view>

#include "dedup/dump.hpp"
#include "output.hpp"

namespace dedupctl {

// One line for each item, in columns of a width that most files fit.
class TextDump {
  public:
    explicit TextDump(Output& out) : out_(out) {}

    void operator()(const dedup::SegmentDump& segment);
    void operator()(const dedup::RecordDump& item);
    void operator()(const dedup::MarkDump& mark);
    void operator()(const dedup::ManifestDump& manifest);
    void operator()(const dedup::DamageDump& damage);
    void operator()(const dedup::UnusedDump& unused);
    void operator()(const dedup::IndexDump& index);
    void operator()(const dedup::TableDump& table);
    void operator()(const dedup::EntryDump& entry);

  private:
    void frame(const dedup::FramePlace& place, std::uint64_t sequence, std::string_view what);

    Output& out_;
    bool titled_ = false;  // the entries of an index are
};

}  // namespace dedupctl
