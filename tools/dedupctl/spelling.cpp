#include "spelling.hpp"

#include <algorithm>

namespace dedupctl {
namespace {

// How many letters are to be added, removed, exchanged or swapped with their neighbour (the optimal
// string alignment distance).
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::vector<std::size_t>> to(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) {
        for (std::size_t j = 0; j <= b.size(); ++j) {
            if (i == 0 || j == 0) {
                to[i][j] = i + j;
                continue;
            }
            to[i][j] = std::min({to[i - 1][j] + 1, to[i][j - 1] + 1,
                                 to[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U)});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                to[i][j] = std::min(to[i][j], to[i - 2][j - 2] + 1);
            }
        }
    }
    return to[a.size()][b.size()];
}

}  // namespace

std::string_view closest(std::string_view word, const std::vector<std::string_view>& words) {
    constexpr std::size_t kWordBytesMax = 64;
    std::string_view best;
    std::size_t best_distance = word.size() <= 4 ? 2 : 3;  // less than this
    if (word.size() > kWordBytesMax) {
        return best;
    }
    for (const std::string_view candidate : words) {
        const std::size_t away = distance(word, candidate);
        if (away < best_distance) {
            best = candidate;
            best_distance = away;
        }
    }
    return best;
}

}  // namespace dedupctl
