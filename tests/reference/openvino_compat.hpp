// SPDX-License-Identifier: Apache-2.0
/// @file
/// Form C of KVCrush, written to be read: one growing list of numbers per layer, sorts, and bits of eight bytes each.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace kvcrush::reference {

using numbers = std::vector<double>;
using counts = std::vector<std::size_t>;

/// The maximum of each number and those behind it, `kernel` of them.
[[nodiscard]] inline numbers forward_max_pool(const numbers& in, std::size_t kernel) {
    numbers out;
    for (std::size_t i = 0; i < in.size(); ++i) {
        double largest = in[i];
        for (std::size_t j = i; j < in.size() && j < i + kernel; ++j) {
            largest = std::max(largest, in[j]);
        }
        out.push_back(largest);
    }
    return out;
}

/// The first k of the indices [0, count) in an order.
template <typename Before>
[[nodiscard]] counts first_of(std::size_t count, std::size_t k, Before before) {
    counts list(count);
    std::iota(list.begin(), list.end(), std::size_t{0});
    std::stable_sort(list.begin(), list.end(), before);
    list.resize(std::min(k, count));
    return list;
}

/// 1 for the better half of the tokens.
[[nodiscard]] inline counts indicators(const numbers& scores) {
    counts bits(scores.size(), 0);
    for (const std::size_t t :
         first_of(scores.size(), scores.size() / 2, [&](std::size_t a, std::size_t b) {
             return scores[a] > scores[b];
         })) {
        bits[t] = 1;
    }
    return bits;
}

/// By name; `random` draws from the generator.
[[nodiscard]] inline counts block_anchor(const std::string& name,
                                         const counts& bits,
                                         std::size_t block_size,
                                         std::mt19937& generator) {
    counts anchor;
    for (std::size_t slot = 0; slot < block_size; ++slot) {
        if (name == "random") {
#ifdef __GLIBCXX__
            std::uniform_int_distribution<int> coin(0, 1);
            anchor.push_back(static_cast<std::size_t>(coin(generator)));
#else
            anchor.push_back(generator() >> 31);
#endif
        } else if (name == "mean") {
            std::size_t set = 0;
            for (std::size_t t = slot; t < bits.size(); t += block_size) {
                set += bits[t];
            }
            const auto blocks = static_cast<double>(bits.size() / block_size);
            anchor.push_back(static_cast<double>(set) / blocks > 0.5 ? 1 : 0);
        } else {
            anchor.push_back(name == "ones" ? 1 : name == "alternate" ? slot % 2 : 0);
        }
    }
    return anchor;
}

[[nodiscard]] inline counts
block_distances(const counts& bits, const counts& anchor, std::size_t block_size) {
    counts distances(bits.size() / block_size, 0);
    for (std::size_t t = 0; t < bits.size(); ++t) {
        distances[t / block_size] += bits[t] != anchor[t % block_size] ? 1U : 0U;
    }
    return distances;
}

/// Which of the candidates stay, nearest first.
[[nodiscard]] inline counts
step_picks(const counts& distances, counts candidates, std::size_t budget) {
    std::stable_sort(candidates.begin(), candidates.end(), [&](std::size_t a, std::size_t b) {
        return distances[a] < distances[b];
    });
    counts picks;
    const std::size_t num_picks = std::min(budget, candidates.size());
    for (std::size_t i = 0; i < num_picks; ++i) {
        picks.push_back(candidates[i * (candidates.size() / num_picks)]);
    }
    return picks;
}

struct openvino_settings {
    std::size_t block_size = 32;
    std::size_t start = 32;
    std::size_t recent = 128;
    std::size_t max_cache = 672;
    bool norm_sum = true;
    std::size_t window = 8;
    std::size_t budget = 0;
    std::string anchor = "random";
    std::uint64_t seed = 0;
};

[[nodiscard]] inline std::size_t
scored_queries(std::size_t window, std::size_t prompt, std::size_t scheduled, std::size_t before) {
    if (window == 0) {
        return scheduled;
    }
    const std::size_t first = prompt > window ? prompt - window : 0;
    const std::size_t after = before + scheduled;
    if (after <= first) {
        return 0;
    }
    return before > first ? scheduled : after - first;
}

/// The state of one sequence.
class openvino_eviction {
public:
    openvino_eviction(const openvino_settings& settings, std::size_t num_layers)
        : settings_(settings),
          layers_(num_layers),
          generator_(static_cast<std::mt19937::result_type>(settings.seed)) {}

    void add(std::size_t index, const numbers& cached, std::size_t scored) {
        layer& l = layers_[index];
        const std::size_t window = settings_.window;
        if (l.seen < window) {
            l.seen = std::min(window, l.seen + scored);
        }
        if (cached.size() <= settings_.start) {
            return;
        }
        const numbers pooled = forward_max_pool(
            {cached.begin() + static_cast<std::ptrdiff_t>(settings_.start), cached.end()}, 7);
        const std::size_t length = pooled.size();
        const std::size_t old = l.scores.size();
        if (old == 0) {
            if (window != 0 && scored == 0) {
                return;
            }
            l.scores = pooled;
            l.counters.assign(length, scored);
            descend(l.counters, window == 0 ? length : scored);
            return;
        }
        l.scores.resize(length, 0.0);
        for (std::size_t t = 0; t < length; ++t) {
            l.scores[t] += pooled[t];
        }
        if (window == 0 || l.seen == window) {
            for (std::size_t& counter : l.counters) {
                counter += length - old;
            }
            for (std::size_t t = old; t < length; ++t) {
                l.counters.push_back(length - t);
            }
        } else {
            l.counters.assign(length, l.seen);
            descend(l.counters, l.seen);
        }
    }

    [[nodiscard]] bool triggered(std::size_t index) const {
        return settings_.start + layers_[index].scores.size() >
               settings_.max_cache + settings_.block_size - 1;
    }

    /// Blocks of the sequence, ascending.
    [[nodiscard]] counts evict(std::size_t index) {
        layer& l = layers_[index];
        if (!triggered(index)) {
            return {};
        }
        const std::size_t size = settings_.block_size;
        const std::size_t start = settings_.start / size;
        const std::size_t end =
            (settings_.start + l.scores.size()) / size - settings_.recent / size;
        const std::size_t evictable = settings_.max_cache - settings_.start - settings_.recent;
        const std::size_t range = end - start;
        const std::size_t go = range - (evictable + size - 1) / size;
        numbers block_scores(range, 0.0);
        for (std::size_t t = 0; t < range * size; ++t) {
            block_scores[t / size] +=
                settings_.norm_sum ? l.scores[t] / static_cast<double>(l.counters[t]) : l.scores[t];
        }
        counts evicted = first_of(range, go, [&](std::size_t a, std::size_t b) {
            return block_scores[a] < block_scores[b];
        });
        std::sort(evicted.begin(), evicted.end());
        candidates = evicted;
        distances.clear();
        if (settings_.budget > 0 && evicted.size() >= settings_.budget) {
            const counts bits = indicators(
                {l.scores.begin(), l.scores.begin() + static_cast<std::ptrdiff_t>(range * size)});
            const counts anchor = block_anchor(settings_.anchor, bits, size, generator_);
            distances = block_distances(bits, anchor, size);
            for (const std::size_t block : step_picks(distances, evicted, settings_.budget)) {
                evicted.erase(std::find(evicted.begin(), evicted.end(), block));
            }
        }
        numbers scores;
        counts counters;
        for (std::size_t t = 0; t < l.scores.size(); ++t) {
            if (std::find(evicted.begin(), evicted.end(), t / size) == evicted.end()) {
                scores.push_back(l.scores[t]);
                counters.push_back(l.counters[t]);
            }
        }
        l.scores = scores;
        l.counters = counters;
        for (std::size_t& block : evicted) {
            block += start;
        }
        return evicted;
    }

    [[nodiscard]] const numbers& scores(std::size_t index) const { return layers_[index].scores; }
    [[nodiscard]] const counts& counters(std::size_t index) const {
        return layers_[index].counters;
    }

    /// Of the last call of evict() with something to do, counted from the end of the sinks: the blocks of least
    /// importance, and how far every block is from the anchor (empty where KVCrush did not come into it).
    counts candidates;
    counts distances;

private:
    struct layer {
        numbers scores;
        counts counters;
        std::size_t seen = 0;
    };

    /// The last `from` counters become from..1, cut where there are fewer.
    static void descend(counts& counters, std::size_t from) {
        for (std::size_t i = 1; i <= from && i <= counters.size(); ++i) {
            counters[counters.size() - i] = i;
        }
    }

    openvino_settings settings_;
    std::vector<layer> layers_;
    std::mt19937 generator_;
};

} // namespace kvcrush::reference
