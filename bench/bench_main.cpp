// SPDX-License-Identifier: Apache-2.0
// Runs the cases, then says how they compare: absolute times of this machine mean little, ratios within a run do.
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <benchmark/benchmark.h>
#include <fmt/format.h>

namespace {

/// Collects the times of cases named family/variant/arguments while the console shows them.
class comparing_reporter : public benchmark::ConsoleReporter {
public:
    void ReportRuns(const std::vector<Run>& runs) override {
        ConsoleReporter::ReportRuns(runs);
        for (const Run& run : runs) {
            const bool wanted = run.repetitions > 1 ? run.aggregate_name == "median" : run.aggregate_name.empty();
            const std::string name = run.run_name.function_name;
            const std::size_t first = name.find('/');
            const std::size_t second = first == std::string::npos ? first : name.find('/', first + 1);
            if (wanted && !run.error_occurred && second != std::string::npos) {
                times_[name.substr(0, first)][name.substr(second + 1)][name.substr(first + 1, second - first - 1)] =
                    run.GetAdjustedRealTime();
                order_[name.substr(0, first)].push_back(name.substr(second + 1));
            }
        }
    }

    /// One line per case of a family: how many times faster than each of its baselines.
    void compare(const std::string& family, const std::vector<std::string>& baselines) {
        if (times_[family].empty()) {
            return;
        }
        fmt::print("\n{}: time of the baseline over time of the case\n", family);
        std::string seen;
        for (const std::string& arguments : order_[family]) {
            if (arguments == seen) {
                continue;
            }
            seen = arguments;
            const auto& variants = times_[family][arguments];
            fmt::print("  {:<24}", arguments);
            for (const auto& [variant, time] : variants) {
                for (const std::string& baseline : baselines) {
                    const auto found = variants.find(baseline);
                    if (variant != baseline && found != variants.end() && !is_baseline(variant, baselines)) {
                        fmt::print("  {}/{} {:.2f}", baseline, variant, found->second / time);
                    }
                }
            }
            fmt::print("\n");
        }
    }

private:
    static bool is_baseline(const std::string& variant, const std::vector<std::string>& baselines) {
        for (const std::string& baseline : baselines) {
            if (variant == baseline) {
                return true;
            }
        }
        return false;
    }

    std::map<std::string, std::map<std::string, std::map<std::string, double>>> times_;
    std::map<std::string, std::vector<std::string>> order_;
};

} // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 2;
    }
    comparing_reporter reporter;
    benchmark::RunSpecifiedBenchmarks(&reporter);
    reporter.compare("hamming", {"naive", "probe"});
    reporter.compare("top_k", {"naive"});
    reporter.compare("compact", {"memcpy"});
    return 0;
}
