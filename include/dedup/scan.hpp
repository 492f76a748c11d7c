// All pages of a scan.
#pragma once

#include <type_traits>
#include <utility>

#include "dedup/store.hpp"

namespace dedup {

// Calls use(page) for each page of a scan from options.cursor on, in their order, until there are
// no more or `use` gives false; it may also give nothing, and may move the heads out of the page.
// Each page costs one call of StreamStore::scan, and what changes between two pages may be seen or
// not. What `use` throws comes back to the caller. Errors: those of scan, behind the pages before.
template <class Use>
[[nodiscard]] Result<void> for_each_page(StreamStore& store, ScanOptions options, Use use) {
    do {
        Result<ScanPage> page = store.scan(options);
        if (!page) {
            return std::unexpected(std::move(page).error());
        }
        options.cursor = page->cursor;
        if constexpr (std::is_void_v<std::invoke_result_t<Use&, ScanPage&>>) {
            use(*page);
        } else if (!use(*page)) {
            return {};
        }
    } while (!options.cursor.empty());
    return {};
}

}  // namespace dedup
