// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <kvcrush/simd/isa.hpp>

#include "threads.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <fstream>
#include <string_view>

namespace lab {
namespace {

constexpr double mebibyte = 1024.0 * 1024.0;

struct column {
    std::string_view title;
    bool left = false;
};

constexpr std::array columns{column{"text", true},
                             column{"policy", true},
                             column{"keep"},
                             column{"tokens"},
                             column{"MiB"},
                             column{"smaller"},
                             column{"ppl ratio"},
                             column{"KLD"},
                             column{"KLD p99"},
                             column{"top-1 %"},
                             column{"select ms"},
                             column{"compact ms"},
                             column{"tokens/s"}};
using line = std::array<std::string, columns.size()>;

[[nodiscard]] line line_of(const measurement& m) {
    return {m.name,
            m.policy,
            fmt::format("{:g}", m.keep_ratio),
            fmt::format("{:.0f}", m.kept_tokens_mean),
            fmt::format("{:.2f}", m.bytes_held / mebibyte),
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
    std::vector<line> lines;
    line titles;
    std::transform(columns.begin(), columns.end(), titles.begin(), [](const column& c) {
        return std::string(c.title);
    });
    lines.push_back(titles);
    std::transform(measurements.begin(), measurements.end(), std::back_inserter(lines), line_of);

    std::array<std::size_t, columns.size()> widths{};
    for (const line& cells : lines) {
        for (std::size_t c = 0; c < cells.size(); ++c) {
            widths[c] = (std::max)(widths[c], cells[c].size());
        }
    }
    std::string table;
    for (const line& cells : lines) {
        std::string text;
        for (std::size_t c = 0; c < cells.size(); ++c) {
            text += columns[c].left ? fmt::format("{:<{}}  ", cells[c], widths[c])
                                    : fmt::format("{:>{}}  ", cells[c], widths[c]);
        }
        table += text.substr(0, text.find_last_not_of(' ') + 1) + '\n';
    }
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
                           {"samples", m.samples},
                           {"seed", nullptr}});
    }
    return results;
}

nlohmann::json json_of_machine() {
    return {{"cpu", cpu_name()},
            {"isa", kvcrush::simd::name_of(kvcrush::simd::best())},
            {"threads", max_threads()}};
}

} // namespace lab
