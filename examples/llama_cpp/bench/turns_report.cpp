// SPDX-License-Identifier: Apache-2.0
#include "turns_report.hpp"

#include "text_table.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <optional>

namespace turns {
namespace {

/// How many times faster it is meant to be, on SmolLM2-135M.
[[nodiscard]] std::optional<double> least_ratio(const row& of) {
    struct bar {
        what kind;
        const char* type;
        std::size_t depth;
        int threads;
        double ratio;
    };
    static constexpr bar bars[] = {{what::decode, "f16", 4096, 1, 1.8},
                                   {what::decode, "q8_0", 4096, 1, 2.15},
                                   {what::decode, "q4_0", 4096, 1, 4.1},
                                   {what::decode, "f16", 4096, 2, 1.6},
                                   {what::decode, "q8_0", 4096, 2, 1.9},
                                   {what::decode, "q4_0", 4096, 2, 3.4},
                                   {what::prompt, "f16", 1024, 1, 1.0},
                                   {what::prompt, "q8_0", 1024, 1, 1.3},
                                   {what::prompt, "q4_0", 1024, 1, 1.7}};
    for (const bar& each : bars) {
        if (each.kind == of.kind && each.type == of.type && each.depth == of.depth &&
            each.threads == of.threads) {
            return each.ratio;
        }
    }
    return std::nullopt;
}

[[nodiscard]] std::string judged(bool holds, const std::string& bar) {
    return bar + (holds ? " holds" : " NOT");
}

[[nodiscard]] std::string speed_bar(const row& of) {
    const std::optional<double> least = least_ratio(of);
    return least ? judged(of.ratio() >= *least, fmt::format(">= {}", *least)) : "";
}

/// f16, bf16 and q8_0 are to be within ggml's own noise, smaller types as near to f16 as ggml's are.
[[nodiscard]] std::string loss_bar(const row& of) {
    if (of.kld < 0.0) {
        return "";
    }
    if (of.type == "f16" || of.type == "bf16" || of.type == "q8_0") {
        return judged(of.kld <= of.kld_floors[0], "<= floor");
    }
    return judged(of.kld_to_f16_kvcrush <= 1.05 * of.kld_to_f16_ggml, "<= 1.05 ggml");
}

[[nodiscard]] std::string loss(double kld) { return kld < 0.0 ? "" : fmt::format("{:.5f}", kld); }

} // namespace

std::string table_of(const std::vector<row>& rows) {
    std::vector<lab::table_line> lines{{"what",
                                        "cache",
                                        "tokens",
                                        "threads",
                                        "ggml ms",
                                        "kvcrush ms",
                                        "faster",
                                        "bar",
                                        "same cache",
                                        "KLD",
                                        "floor 128",
                                        "floor 32",
                                        "floor 1",
                                        "ggml to f16",
                                        "kvcrush to f16",
                                        "bar"}};
    for (const row& each : rows) {
        const auto floor = [&](std::size_t i) {
            return each.kld < 0.0 ? "" : loss(each.kld_floors[i]);
        };
        lines.push_back({each.kind == what::decode ? "token" : "prompt",
                         each.type,
                         std::to_string(each.depth),
                         std::to_string(each.threads),
                         fmt::format("{:.2f}", each.ggml_ms),
                         fmt::format("{:.2f}", each.kvcrush_ms),
                         fmt::format("{:.2f}x", each.ratio()),
                         speed_bar(each),
                         loss(each.kld_same_cache),
                         loss(each.kld),
                         floor(0),
                         floor(1),
                         floor(2),
                         loss(each.kld_to_f16_ggml),
                         loss(each.kld_to_f16_kvcrush),
                         loss_bar(each)});
    }
    return lab::aligned(lines, 2) + "\ntoken: one decoded behind so many; prompt: so many read. "
                                    "The least of all turns, CPU time with one thread, "
                                    "wall time with more."
                                    "\nKLD [nats]: of the backend's predictions from ggml's, each "
                                    "having read everything by itself; same cache: behind "
                                    "one that both were\ngiven; floor N: of ggml from itself, with "
                                    "the prompt read N tokens at once and not 512; "
                                    "to f16: from ggml with an f16 cache.\nBars are those of "
                                    "SmolLM2-135M; that of the KLD is about floor 128.\n";
}

std::string json_of(const std::vector<row>& rows) {
    nlohmann::json document = nlohmann::json::array();
    for (const row& each : rows) {
        nlohmann::json line{{"what", each.kind == what::decode ? "decode" : "prompt"},
                            {"type", each.type},
                            {"depth", each.depth},
                            {"threads", each.threads},
                            {"ggml_ms", each.ggml_ms},
                            {"kvcrush_ms", each.kvcrush_ms},
                            {"ggml_median_ms", each.ggml_median_ms},
                            {"kvcrush_median_ms", each.kvcrush_median_ms},
                            {"ratio", each.ratio()},
                            {"kld", nullptr}};
        if (each.kld_same_cache >= 0.0) {
            line["kld_same_cache"] = each.kld_same_cache;
            line["kld"] = each.kld_same_cache; // where it was not measured with caches of their own
        }
        if (each.kld >= 0.0) {
            line["kld"] = each.kld;
            line["kld_floor"] = each.kld_floors[0];
            for (std::size_t i = 1; i < other_batches.size(); ++i) {
                line[fmt::format("kld_floor_{}", other_batches[i])] = each.kld_floors[i];
            }
            line["kld_to_f16_ggml"] = each.kld_to_f16_ggml;
            line["kld_to_f16_kvcrush"] = each.kld_to_f16_kvcrush;
        }
        document.push_back(std::move(line));
    }
    return document.dump(1) + "\n";
}

} // namespace turns
