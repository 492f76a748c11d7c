// Finding a store, and creating one.
#pragma once

#include "engine/context.hpp"

namespace dedup {

// True if there is a store at `path`, false if one could be created there.
[[nodiscard]] Result<bool> find_store(Env& env, const Path& path);

// Of a log without segments. Errors: corruption (it had some), invalid_argument (there is no store,
// and none is to be created).
[[nodiscard]] Result<void> check_creatable(const StoreContext& context);

// The first segment and the catalog of a new store. The store exists with the segment's name; only
// then comes the catalog, which tells a log that is lost from one that was never begun.
[[nodiscard]] Result<void> create_files(StoreContext& context);

// Makes the names of the store and of what is in it durable. At every opening: one before may have
// been cut short just after it had created them.
[[nodiscard]] Result<void> sync_directories(const StoreContext& context);

// A copy that is opened for writing is one no more: before anything is appended, so that no backup
// replaces it.
[[nodiscard]] Result<void> make_store_of_copy(const StoreContext& context);

// Makes an empty catalog with a new secret in place of whatever is there.
[[nodiscard]] Result<void> make_catalog(const StoreContext& context);

}  // namespace dedup
