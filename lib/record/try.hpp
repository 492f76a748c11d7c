// How an error is passed on.
//
//     const Record record = DEDUP_TRY(read(place));  // its value; or the caller returns the error
//     DEDUP_TRY(flush());                            // the same of a Result<void>
//
// An expression of statements, which both compilers have, so that it stands wherever a value can.
#pragma once

#include <expected>
#include <utility>

#define DEDUP_TRY(expression) DEDUP_TRY_AS(expression, __COUNTER__)
// Through one more, so that __COUNTER__ is a number before it becomes part of a name. (One may
// stand within another's expression, and their names must differ.)
#define DEDUP_TRY_AS(expression, number) DEDUP_TRY_AS_(expression, number)
#define DEDUP_TRY_AS_(expression, number) DEDUP_TRY_NAMED(expression, dedup_tried_##number)
// NOLINTBEGIN(bugprone-macro-parentheses): a name cannot stand in them.
#define DEDUP_TRY_NAMED(expression, tried)                    \
    __extension__({                                           \
        auto tried = (expression);                            \
        if (!tried) [[unlikely]] {                            \
            return std::unexpected(std::move(tried).error()); \
        }                                                     \
        *std::move(tried);                                    \
    })
// NOLINTEND(bugprone-macro-parentheses)
