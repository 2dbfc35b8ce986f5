// SPDX-License-Identifier: Apache-2.0
// Runs the cases, then says how they compare: absolute times of this machine mean little, ratios within a run do.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

/// Collects the times of cases named family/variant/arguments while the console shows them.
class comparing_reporter : public benchmark::ConsoleReporter {
public:
    comparing_reporter()
        : ConsoleReporter(isatty(STDOUT_FILENO) == 1 ? OO_ColorTabular : OO_Tabular) {}

    void ReportRuns(const std::vector<Run>& runs) override {
        ConsoleReporter::ReportRuns(runs);
        for (const Run& run : runs) {
            const bool wanted =
                run.repetitions > 1 ? run.aggregate_name == "median" : run.aggregate_name.empty();
            const std::string name = run.run_name.function_name;
            const std::size_t first = name.find('/');
            const std::size_t second =
                first == std::string::npos ? first : name.find('/', first + 1);
            if (wanted && !run.error_occurred && second != std::string::npos) {
                times_[name.substr(0, first)][name.substr(second + 1)][name.substr(
                    first + 1, second - first - 1)] =
                    run.GetAdjustedCPUTime(); // one thread: what others do on this machine stays out
                std::vector<std::string>& order = order_[name.substr(0, first)];
                if (std::find(order.begin(), order.end(), name.substr(second + 1)) == order.end()) {
                    order.push_back(name.substr(second + 1));
                }
            }
        }
    }

    /// One line per case of a family: how many times faster than each of its baselines.
    void compare(const std::string& family, const std::vector<std::string>& baselines) {
        if (times_[family].empty()) {
            return;
        }
        fmt::print("\n{}: time of the baseline over time of the case\n", family);
        // Random interleaving shuffles the cases.
        std::vector<std::string>& order = order_[family];
        std::sort(order.begin(), order.end(), [](const std::string& a, const std::string& b) {
            return numbers_in(a) < numbers_in(b);
        });
        for (const std::string& arguments : order) {
            const auto& variants = times_[family][arguments];
            fmt::print("  {:<24}", arguments);
            for (const auto& [variant, time] : variants) {
                for (const std::string& baseline : baselines) {
                    const auto found = variants.find(baseline);
                    if (variant != baseline && found != variants.end() &&
                        !is_baseline(variant, baselines)) {
                        fmt::print("  {}/{} {:.2f}", baseline, variant, found->second / time);
                    }
                }
            }
            fmt::print("\n");
        }
    }

private:
    /// The numbers of "bits:64/tokens:4096", in order.
    static std::vector<std::size_t> numbers_in(const std::string& arguments) {
        std::vector<std::size_t> numbers;
        for (std::size_t i = arguments.find(':'); i != std::string::npos;
             i = arguments.find(':', i + 1)) {
            numbers.push_back(std::stoul(arguments.substr(i + 1)));
        }
        return numbers;
    }

    static bool is_baseline(const std::string& variant, const std::vector<std::string>& baselines) {
        return std::find(baselines.begin(), baselines.end(), variant) != baselines.end();
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
