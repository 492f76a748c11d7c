// The mark of a copy: a file in it that says what may be replaced and removed. It is named COPY in
// a copy that is whole; kPartialName as long as one is made, until a store that is put back has its
// name, and while one is removed. Nothing that has the second name can be opened.
//
// Each change is flushed before the call returns, so what a crash leaves is marked as it is.
#pragma once

#include "env/env.hpp"

namespace dedup {

[[nodiscard]] Result<bool> is_copy(Env& env, const Path& path);
[[nodiscard]] Result<bool> is_partial(Env& env, const Path& path);
// Whether it is a copy, or a part of one, or had just been begun.
[[nodiscard]] Result<bool> is_rest(Env& env, const Path& path);

// Marks a directory in which a copy begins, or a copy that is to go.
[[nodiscard]] Result<void> mark_as_partial(Env& env, const Path& path);
[[nodiscard]] Result<void> mark_as_copy(Env& env, const Path& path);
// What was partial is a store from now on.
[[nodiscard]] Result<void> remove_mark(Env& env, const Path& path);

// It is no error if there is none.
[[nodiscard]] Result<void> remove_directory(const Path& path);
// Removes a copy, or a part of one; the mark last. Whoever calls it keeps others out.
[[nodiscard]] Result<void> remove_copy(const Path& path);
// Removes what is there if it is partial, and nothing else lies in it. Errors: busy (somebody is at
// it).
[[nodiscard]] Result<void> remove_partial(Env& env, const Path& path);

}  // namespace dedup
