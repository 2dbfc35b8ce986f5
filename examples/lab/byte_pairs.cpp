// SPDX-License-Identifier: Apache-2.0
#include "byte_pairs.hpp"

#include <functional>
#include <queue>
#include <tuple>

namespace lab {
namespace {

constexpr std::uint64_t key_of(int left, int right) noexcept {
    return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32U) |
           static_cast<std::uint32_t>(right);
}

constexpr std::size_t none = static_cast<std::size_t>(-1);
constexpr int gone = -1;

/// A merge that was possible when it was queued. Ordered by rank, then by place.
struct candidate {
    std::uint32_t rank;
    std::size_t place;
    int left;
    int right;
    int merged;

    friend bool operator>(const candidate& a, const candidate& b) noexcept {
        return std::tie(a.rank, a.place) > std::tie(b.rank, b.place);
    }
};

struct neighbours {
    std::size_t previous;
    std::size_t next;
};

} // namespace

void byte_pairs::add(int left, int right, int merged) {
    rules_.try_emplace(key_of(left, right),
                       rule{static_cast<std::uint32_t>(rules_.size()), merged});
}

const byte_pairs::rule* byte_pairs::find(int left, int right) const noexcept {
    const auto found = rules_.find(key_of(left, right));
    return found == rules_.end() ? nullptr : &found->second;
}

void byte_pairs::merge(std::vector<int>& tokens) const {
    if (tokens.size() < 2) {
        return;
    }
    std::priority_queue<candidate, std::vector<candidate>, std::greater<>> queue;
    std::vector<neighbours> links(tokens.size());
    const auto enqueue = [&](std::size_t place) {
        const std::size_t next = links[place].next;
        if (next == none) {
            return;
        }
        if (const rule* found = find(tokens[place], tokens[next])) {
            queue.push({found->rank, place, tokens[place], tokens[next], found->merged});
        }
    };
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        links[i] = {i == 0 ? none : i - 1, i + 1 == tokens.size() ? none : i + 1};
    }
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
        enqueue(i);
    }
    while (!queue.empty()) {
        const candidate best = queue.top();
        queue.pop();
        const std::size_t next = links[best.place].next;
        // Stale: one of the two has been merged with another neighbour meanwhile.
        if (tokens[best.place] != best.left || next == none || tokens[next] != best.right) {
            continue;
        }
        tokens[best.place] = best.merged;
        tokens[next] = gone;
        links[best.place].next = links[next].next;
        if (links[next].next != none) {
            links[links[next].next].previous = best.place;
        }
        enqueue(best.place);
        if (links[best.place].previous != none) {
            enqueue(links[best.place].previous);
        }
    }
    std::erase(tokens, gone);
}

} // namespace lab
