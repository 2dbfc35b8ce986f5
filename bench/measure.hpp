// SPDX-License-Identifier: Apache-2.0
/// @file
/// Time of several functions that take turns, so that what the machine does meanwhile meets all of them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <ctime>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush::bench {

/// How much time a measurement may take.
struct effort {
    std::size_t min_rounds = 7;
    std::size_t max_rounds = 61;
    /// After this, no more rounds than min_rounds [s].
    double seconds = 0.8;
    /// Short calls are repeated until a sample takes this long, well above what reading the clock costs [s].
    double sample_seconds = 200e-6;
};

/// CPU time of the calling thread [s]: other programs on this CPU do not count.
[[nodiscard]] inline double thread_cpu_seconds() noexcept {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Time on the wall [s], for work that several threads share.
[[nodiscard]] inline double wall_seconds() noexcept {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
}

/// The value below which a share of the values lies, between two of them by linear interpolation.
[[nodiscard]] inline double quantile(std::vector<double> values, double share) {
    std::sort(values.begin(), values.end());
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = (std::min)(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

/// What the contestants of one round robin took, [ns] a call.
class timings {
public:
    struct contestant {
        std::string name;
        std::vector<double> samples; ///< one a round
    };

    explicit timings(std::vector<contestant> contestants) : contestants_(std::move(contestants)) {}

    [[nodiscard]] const std::vector<contestant>& contestants() const noexcept {
        return contestants_;
    }
    [[nodiscard]] bool has(std::string_view name) const noexcept { return find(name) != nullptr; }
    [[nodiscard]] double median(std::string_view name) const {
        return quantile(samples(name), 0.5);
    }
    /// Ratio of the medians.
    [[nodiscard]] double ratio(std::string_view over, std::string_view under) const {
        return median(over) / median(under);
    }
    /// How far the ratios of single rounds lie apart: half the distance of their quartiles, over the ratio.
    [[nodiscard]] double spread(std::string_view over, std::string_view under) const {
        std::vector<double> ratios = samples(over);
        const std::vector<double>& others = samples(under);
        for (std::size_t i = 0; i < ratios.size(); ++i) {
            ratios[i] /= others[i];
        }
        return (quantile(ratios, 0.75) - quantile(ratios, 0.25)) / 2.0 / ratio(over, under);
    }

private:
    [[nodiscard]] const contestant* find(std::string_view name) const noexcept {
        for (const contestant& one : contestants_) {
            if (one.name == name) {
                return &one;
            }
        }
        return nullptr;
    }
    [[nodiscard]] const std::vector<double>& samples(std::string_view name) const {
        const contestant* found = find(name);
        if (found == nullptr) {
            throw std::logic_error("kvcrush_bars: '" + std::string(name) + "' was not measured");
        }
        return found->samples;
    }

    std::vector<contestant> contestants_;
};

/// Runs its contestants in turn, round after round. Before each sample a contestant makes one call that does not
/// count: what the one before it threw out of the caches is its own business again.
class round_robin {
public:
    /// Called with 0, 1, 2, ...: work whose branches depend on the data takes other data each time.
    using call = std::function<void(std::size_t turn)>;
    using clock = double (*)();

    explicit round_robin(const effort& limits, clock now = thread_cpu_seconds)
        : limits_(limits), now_(now) {}

    void add(std::string name, call work) {
        entries_.push_back({std::move(name), std::move(work), 1, 0, {}});
    }

    [[nodiscard]] timings run() {
        const double begin = wall_seconds();
        for (entry& one : entries_) {
            calibrate(one);
        }
        for (std::size_t round = 0; round < limits_.max_rounds; ++round) {
            if (round >= limits_.min_rounds && wall_seconds() - begin > limits_.seconds) {
                break;
            }
            for (entry& one : entries_) {
                one.samples.push_back(1e9 * sample(one) / static_cast<double>(one.calls));
            }
        }
        std::vector<timings::contestant> all;
        for (entry& one : entries_) {
            all.push_back({std::move(one.name), std::move(one.samples)});
        }
        return timings(std::move(all));
    }

private:
    struct entry {
        std::string name;
        call work;
        std::size_t calls; ///< in one sample
        std::size_t turn;
        std::vector<double> samples;
    };

    /// CPU time of one sample, after a warm-up [s].
    double sample(entry& one) const {
        one.work(one.turn++);
        const double begin = now_();
        for (std::size_t i = 0; i < one.calls; ++i) {
            one.work(one.turn++);
            asm volatile("" ::: "memory"); // the results count as read
        }
        return now_() - begin;
    }

    void calibrate(entry& one) const {
        for (double took = sample(one); took < limits_.sample_seconds; took = sample(one)) {
            const double wanted = 1.2 * limits_.sample_seconds / (std::max)(took, 1e-9);
            one.calls = static_cast<std::size_t>(static_cast<double>(one.calls) *
                                                 (std::min)(wanted, 100.0)) +
                        1;
        }
    }

    effort limits_;
    clock now_;
    std::vector<entry> entries_;
};

} // namespace kvcrush::bench
