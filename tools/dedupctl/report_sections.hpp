// Parts of a page that a report and a server's page share.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "html_page.hpp"
#include "report.hpp"

namespace dedupctl {

// The cell of a table that names a record's key, as HTML.
using KeyCell = std::function<std::string(const dedup::Record&)>;

// Numbers, `bad` where there is something to be done. `text` is HTML.
struct Card {
    std::string_view what;
    std::string text;
    bool bad = false;
};
void add_cards(Page& page, const std::vector<Card>& cards);

// Of each that is not empty, a line.
void add_troubles(Page& page, const dedup::StoreStats& stats);

// Keys by the time in their state, and by namespace.
void add_keys(Page& page, const Report& report);

// The claims that are held, and those whose lease has run out.
void add_waiting(Page& page, const Report& report, const KeyCell& key_cell);

void add_sweeps(Page& page, const std::vector<dedup::SweepReport>& sweeps);

}  // namespace dedupctl
