// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <kvcrush/simd/isa.hpp>

#include "text_table.hpp"
#include "threads.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <iterator>

namespace lab {
namespace {

constexpr double mib = 1024.0 * 1024.0;

const table_line titles = {"text",
                           "policy",
                           "keep",
                           "tokens",
                           "MiB",
                           "smaller",
                           "ppl ratio",
                           "KLD",
                           "KLD p99",
                           "top-1 %",
                           "select ms",
                           "compact ms",
                           "tokens/s"};
constexpr std::size_t num_name_columns = 2;

[[nodiscard]] table_line line_of(const measurement& m) {
    return {m.name,
            m.policy,
            fmt::format("{:.3g}", m.keep_ratio),
            fmt::format("{:.0f}", m.kept_tokens_mean),
            fmt::format("{:.2f}", m.bytes_held / mib),
            fmt::format("{:.2f}x", m.bytes_full / m.bytes_held),
            fmt::format("{:.3f}", m.ppl_ratio),
            fmt::format("{:.4f}", m.quality.kld_mean),
            fmt::format("{:.3f}", m.quality.kld_p99),
            fmt::format("{:.1f}", 100.0 * m.quality.top1_agreement),
            fmt::format("{:.1f}", m.select_ms),
            fmt::format("{:.1f}", m.compact_ms),
            m.decode_ms_per_token > 0.0 ? fmt::format("{:.1f}", 1000.0 / m.decode_ms_per_token)
                                        : "-"};
}

[[nodiscard]] std::string cpu_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string text; std::getline(info, text);) {
        if (text.rfind("model name", 0) == 0 && text.find(':') != std::string::npos) {
            return text.substr(text.find(':') + 2);
        }
    }
    return "unknown";
}

} // namespace

std::string table_of(const std::vector<measurement>& measurements) {
    std::vector<table_line> lines{titles};
    std::transform(measurements.begin(), measurements.end(), std::back_inserter(lines), line_of);
    std::string table = aligned(lines, num_name_columns);
    table +=
        "\nMiB: held after compression, positions of kept rows included; smaller: than all rows in "
        "f16."
        "\nppl ratio, KLD, KLD p99 (nats), top-1: predictions against those of the full cache, "
        "whose row is the"
        "\ngoal. Go by KLD: a perplexity over 128 tokens can fall below the full cache's by chance."
        "\nselect, compact: all layers, one thread; tokens/s: decoding on the compressed cache.\n";
    return table;
}

nlohmann::json json_of(const std::vector<measurement>& measurements, const std::string& task) {
    nlohmann::json results = nlohmann::json::array();
    for (const measurement& m : measurements) {
        results.push_back({{"task", task},
                           {"mode", nullptr},
                           {"name", m.name},
                           {"turn", nullptr},
                           {"policy", m.policy},
                           {"keep_ratio", m.keep_ratio},
                           {"context", m.context},
                           {"kept_tokens_mean", m.kept_tokens_mean},
                           {"bytes_full", m.bytes_full},
                           {"bytes_held", m.bytes_held},
                           {"nll", m.quality.nll},
                           {"nll_full", m.nll_full},
                           {"ppl_ratio", m.ppl_ratio},
                           {"kld_mean", m.quality.kld_mean},
                           {"kld_p99", m.quality.kld_p99},
                           {"top1_agreement", m.quality.top1_agreement},
                           {"accuracy", nullptr},
                           {"answer_nll", nullptr},
                           {"select_ms", m.select_ms},
                           {"compact_ms", m.compact_ms},
                           {"prefill_ms", m.prefill_ms},
                           {"decode_ms_per_token", m.decode_ms_per_token},
                           {"attention_ms_per_token", m.attention_ms_per_token},
                           {"samples", m.samples},
                           {"seed", nullptr},
                           {"depth", nullptr},
                           {"lo", nullptr},
                           {"hi", nullptr},
                           {"answer_nll_lo", nullptr},
                           {"answer_nll_hi", nullptr}});
    }
    return results;
}

nlohmann::json json_of_machine() {
    return {{"cpu", cpu_name()},
            {"isa", kvcrush::simd::name_of(kvcrush::simd::best())},
            {"threads", max_threads()}};
}

} // namespace lab
