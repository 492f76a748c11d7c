// Puts records into a store that has other ones, and never replaces what was there.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "dedup/store.hpp"
#include "import_source.hpp"
#include "sequence_set.hpp"

namespace dedupctl {

struct ImportCounts {
    std::uint64_t imported = 0;
    std::uint64_t equal = 0;    // in the store already
    std::uint64_t differ = 0;   // in the store with another record, which stays
    std::uint64_t expired = 0;  // over already, as nobody would see them
    std::uint64_t bad = 0;      // left out

    [[nodiscard]] std::uint64_t read() const { return imported + equal + differ + expired + bad; }
};

class Importer {
  public:
    // What is told of records that the store has in another version.
    enum class Differences : std::uint8_t { reported, counted };

    // The store must outlive the importer. Others may write to it.
    explicit Importer(dedup::StreamStore& store, Differences differences = Differences::reported);

    // Takes a record in; it is in the store after finish() at the latest, as they are flushed
    // when enough have been collected. Gives what is wrong with the record, if anything is.
    [[nodiscard]] std::string add(ImportItem item);

    // Flushes the rest and reports the differences. Throws a Failure if the store fails; what has
    // been counted by then is durable.
    void finish();

    void skip() { ++counts_.bad; }
    [[nodiscard]] const ImportCounts& counts() const { return counts_; }

  private:
    void flush();
    void forget();
    void flush_open(std::vector<std::size_t>& open);
    [[nodiscard]] bool settle(const ImportItem& item, const dedup::Record* head);
    void note_of_part(const ImportItem& item, std::uint64_t head);
    void add_difference(const ImportItem& item, const dedup::Record& head);
    void report_differences();

    dedup::StreamStore& store_;
    const Differences differences_;
    std::vector<ImportItem> items_;
    std::size_t bytes_ = 0;  // of items_, roughly
    std::uint64_t part_ = 0;
    // Heads that this import, or an earlier one of the same file, has taken from this part. A newer
    // record of the part takes their place, and that of nobody else's.
    SequenceSet of_part_;
    // Heads that records of this part differ from, and how many do. The part may have the head
    // itself later on: then those were older versions of it.
    std::unordered_map<std::uint64_t, std::uint64_t> differ_;
    struct Difference {
        std::uint64_t head;
        std::string text;
    };
    std::vector<Difference> reports_;  // of this part, in its order; at most kDifferencesShown
    ImportCounts counts_;
};

}  // namespace dedupctl
