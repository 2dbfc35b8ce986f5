// SPDX-License-Identifier: Apache-2.0
#include "evaluation_report.hpp"

#include "report.hpp"
#include "text_table.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace lab {
namespace {

constexpr double mebibyte = 1024.0 * 1024.0;
const std::string later_turns = "2+";

/// The rows of one task, policy and ratio, in the order of the samples.
template <typename Row>
struct group {
    std::string task;
    std::string policy;
    double keep_ratio = 1.0;
    std::vector<const Row*> rows;

    template <typename F>
    [[nodiscard]] std::vector<double> each(const F& value) const {
        std::vector<double> values;
        for (const Row* row : rows) {
            values.push_back(value(*row));
        }
        return values;
    }
    template <typename F>
    [[nodiscard]] double mean(const F& value) const {
        double sum = 0.0;
        for (const Row* row : rows) {
            sum += value(*row) / static_cast<double>(rows.size());
        }
        return sum;
    }
    [[nodiscard]] nlohmann::json seed() const {
        const auto& first = rows.front()->seed;
        const bool same = std::all_of(
            rows.begin(), rows.end(), [&](const Row* row) { return row->seed == first; });
        return same && first ? nlohmann::json(*first) : nlohmann::json(nullptr);
    }
};

/// Tasks in the order of the samples; within each, policies and ratios.
template <typename Row>
[[nodiscard]] std::vector<group<Row>> group_rows(const std::vector<Row>& rows) {
    std::vector<group<Row>> groups;
    for (const Row& row : rows) {
        const auto found =
            std::find_if(groups.begin(), groups.end(), [&](const group<Row>& candidate) {
                return candidate.task == row.task && candidate.policy == row.measured.policy &&
                       candidate.keep_ratio == row.measured.keep_ratio;
            });
        if (found != groups.end()) {
            found->rows.push_back(&row);
        } else {
            groups.push_back({row.task, row.measured.policy, row.measured.keep_ratio, {&row}});
        }
    }
    return groups;
}

using lm_group = group<lm_row>;
using retrieval_group = group<retrieval_row>;

[[nodiscard]] bool has_turn(const retrieval_row& row, const std::string& turn) {
    const std::size_t turns = row.measured.turns.size();
    return turn == later_turns ? turns > 1 : std::stoul(turn) <= turns;
}

/// "1", "2", ... and "2+" where there is more than one.
[[nodiscard]] std::vector<std::string> turns_of(const retrieval_group& of) {
    std::size_t most = 0;
    for (const retrieval_row* row : of.rows) {
        most = (std::max)(most, row->measured.turns.size());
    }
    std::vector<std::string> turns;
    for (std::size_t t = 1; t <= most; ++t) {
        turns.push_back(fmt::format("{}", t));
    }
    if (most > 1) {
        turns.push_back(later_turns);
    }
    return turns;
}

/// A figure of a turn, one per dialogue that has it: dialogues are the independent samples, not their turns.
template <typename F>
[[nodiscard]] std::vector<double>
each_answer(const retrieval_group& of, const std::string& turn, const F& figure) {
    std::vector<double> values;
    for (const retrieval_row* row : of.rows) {
        if (!has_turn(*row, turn)) {
            continue;
        }
        const std::vector<answer_score>& turns = row->measured.turns;
        if (turn != later_turns) {
            values.push_back(figure(turns[std::stoul(turn) - 1]));
            continue;
        }
        double sum = 0.0;
        for (std::size_t t = 1; t < turns.size(); ++t) {
            sum += figure(turns[t]);
        }
        values.push_back(sum / static_cast<double>(turns.size() - 1));
    }
    return values;
}

constexpr auto accuracy_of = [](const answer_score& score) { return score.exact ? 1.0 : 0.0; };
constexpr auto nll_of = [](const answer_score& score) { return score.nll; };
constexpr auto divergence_of = [](const lm_row& row) { return row.measured.quality.kld_mean; };
constexpr auto text_nll_of = [](const lm_row& row) { return row.measured.quality.nll; };

[[nodiscard]] std::string with_interval(const interval& figure, int digits) {
    return fmt::format(
        "{:.{}f} [{:.{}f}-{:.{}f}]", figure.value, digits, figure.lo, digits, figure.hi, digits);
}

/// What both kinds of rows say of a compression.
template <typename Row>
[[nodiscard]] table_line compression_cells(const group<Row>& of) {
    const double held = of.mean([](const Row& row) { return row.measured.bytes_held; });
    const double full = of.mean([](const Row& row) { return row.measured.bytes_full; });
    return {of.task,
            of.policy,
            fmt::format("{:g}", of.keep_ratio),
            fmt::format("{:.0f}",
                        of.mean([](const Row& row) { return row.measured.kept_tokens_mean; })),
            fmt::format("{:.2f}", held / mebibyte),
            fmt::format("{:.2f}x", full / held)};
}

const table_line compression_titles = {"task", "policy", "keep", "tokens", "MiB", "smaller"};
constexpr std::size_t left_columns = 2;

[[nodiscard]] std::string table_of(const std::vector<lm_group>& groups) {
    std::vector<table_line> lines{compression_titles};
    for (const char* title : {"ppl ratio", "KLD [95 %]", "KLD p99", "top-1 %", "select ms", "n"}) {
        lines.front().emplace_back(title);
    }
    for (const lm_group& of : groups) {
        table_line cells = compression_cells(of);
        const double worse = of.mean(
            [](const lm_row& row) { return row.measured.quality.nll - row.measured.nll_full; });
        cells.push_back(fmt::format("{:.3f}", std::exp(worse)));
        cells.push_back(with_interval(bootstrap_mean(of.each(divergence_of)), 4));
        cells.push_back(fmt::format(
            "{:.3f}", of.mean([](const lm_row& row) { return row.measured.quality.kld_p99; })));
        cells.push_back(fmt::format("{:.1f}", 100.0 * of.mean([](const lm_row& row) {
            return row.measured.quality.top1_agreement;
        })));
        cells.push_back(fmt::format(
            "{:.1f}", of.mean([](const lm_row& row) { return row.measured.select_ms; })));
        cells.push_back(fmt::format("{}", of.rows.size()));
        lines.push_back(std::move(cells));
    }
    return aligned(lines, left_columns) +
           "\nppl ratio, KLD (nats), top-1: predictions against those of the full cache. Go by "
           "KLD.\n\n";
}

[[nodiscard]] std::string table_of(const std::vector<retrieval_group>& groups,
                                   const std::string& mode) {
    std::vector<table_line> lines{compression_titles};
    for (const char* title :
         {"t1 right [95 %]", "t1 NLL", "t2+ right [95 %]", "t2+ NLL", "select ms", "n"}) {
        lines.front().emplace_back(title);
    }
    for (const retrieval_group& of : groups) {
        table_line cells = compression_cells(of);
        for (const std::string& turn : {std::string("1"), later_turns}) {
            const std::vector<double> right = each_answer(of, turn, accuracy_of);
            if (right.empty()) {
                cells.insert(cells.end(), {"-", "-"});
                continue;
            }
            cells.push_back(with_interval(bootstrap_mean(right), 2));
            cells.push_back(
                fmt::format("{:.2f}", bootstrap_mean(each_answer(of, turn, nll_of)).value));
        }
        cells.push_back(fmt::format(
            "{:.1f}", of.mean([](const retrieval_row& row) { return row.measured.select_ms; })));
        cells.push_back(fmt::format("{}", of.rows.size()));
        lines.push_back(std::move(cells));
    }
    const char* seen =
        mode == "aware"
            ? "the first question was visible to the policy (aware)"
            : (mode == "requests" ? "no question was visible, each was asked alone (requests)"
                                  : "no question was visible to the policy (agnostic)");
    return aligned(lines, left_columns) +
           fmt::format(
               "\nt1: the first question, t2+: those after it; {}.\nright: share of answers that "
               "greedy decoding gives exactly; NLL: of the right answer, per token (nats).\n\n",
               seen);
}

/// The full cache has one ratio only, and others are compared with it at theirs.
template <typename Row>
[[nodiscard]] const group<Row>*
partner(const std::vector<group<Row>>& groups, const group<Row>& of, const std::string& against) {
    const auto found = std::find_if(groups.begin(), groups.end(), [&](const group<Row>& candidate) {
        return candidate.task == of.task && candidate.policy == against &&
               (candidate.keep_ratio == of.keep_ratio || against == "full");
    });
    return found == groups.end() || of.policy == against ? nullptr : &*found;
}

/// Null where a figure is not a number.
[[nodiscard]] nlohmann::json finite(double value) {
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

/// A row of the contract with nothing measured.
[[nodiscard]] nlohmann::json empty_row() {
    nlohmann::json row = json_of(std::vector<measurement>(1), "").front();
    for (auto& value : row) {
        value = nullptr;
    }
    return row;
}

[[nodiscard]] nlohmann::json row_of(const retrieval_row& from, const std::string& mode) {
    const retrieval_result& result = from.measured;
    nlohmann::json row = empty_row();
    row["task"] = from.task;
    row["mode"] = mode;
    row["name"] = from.name;
    row["policy"] = result.policy;
    row["keep_ratio"] = result.keep_ratio;
    row["context"] = result.context;
    row["kept_tokens_mean"] = result.kept_tokens_mean;
    row["bytes_full"] = result.bytes_full;
    row["bytes_held"] = result.bytes_held;
    row["select_ms"] = result.select_ms;
    row["compact_ms"] = result.compact_ms;
    row["prefill_ms"] = result.prefill_ms;
    row["samples"] = 1;
    row["seed"] = from.seed ? nlohmann::json(*from.seed) : nlohmann::json(nullptr);
    row["depth"] = from.depth ? nlohmann::json(*from.depth) : nlohmann::json(nullptr);
    return row;
}

void append_means(const retrieval_group& of, const std::string& mode, nlohmann::json& rows) {
    nlohmann::json mean = row_of(*of.rows.front(), mode);
    mean["name"] = "mean";
    mean["depth"] = nullptr;
    mean["seed"] = of.seed();
    const auto average = [&](const char* key, const auto& value) { mean[key] = of.mean(value); };
    using row = retrieval_row;
    average("kept_tokens_mean", [](const row& r) { return r.measured.kept_tokens_mean; });
    average("bytes_full", [](const row& r) { return r.measured.bytes_full; });
    average("bytes_held", [](const row& r) { return r.measured.bytes_held; });
    average("select_ms", [](const row& r) { return r.measured.select_ms; });
    average("compact_ms", [](const row& r) { return r.measured.compact_ms; });
    average("prefill_ms", [](const row& r) { return r.measured.prefill_ms; });
    for (const std::string& turn : turns_of(of)) {
        const std::vector<double> right = each_answer(of, turn, accuracy_of);
        const interval accuracy = bootstrap_mean(right);
        const interval nll = bootstrap_mean(each_answer(of, turn, nll_of));
        mean["turn"] =
            turn == later_turns ? nlohmann::json(turn) : nlohmann::json(std::stoul(turn));
        mean["samples"] = right.size();
        mean["accuracy"] = accuracy.value;
        mean["lo"] = accuracy.lo;
        mean["hi"] = accuracy.hi;
        mean["answer_nll"] = finite(nll.value);
        mean["answer_nll_lo"] = finite(nll.lo);
        mean["answer_nll_hi"] = finite(nll.hi);
        rows.push_back(mean);
    }
}

[[nodiscard]] nlohmann::json row_of(const lm_row& from) {
    nlohmann::json row = json_of(std::vector<measurement>{from.measured}, from.task).front();
    row["seed"] = from.seed ? nlohmann::json(*from.seed) : nlohmann::json(nullptr);
    return row;
}

[[nodiscard]] nlohmann::json mean_of(const lm_group& of) {
    std::vector<measurement> measured;
    for (const lm_row* row : of.rows) {
        measured.push_back(row->measured);
    }
    append_means(measured);
    nlohmann::json mean = json_of(std::vector<measurement>{measured.back()}, of.task).front();
    const interval divergence = bootstrap_mean(of.each(divergence_of));
    mean["seed"] = of.seed();
    mean["lo"] = finite(divergence.lo);
    mean["hi"] = finite(divergence.hi);
    return mean;
}

/// -26 % [-42, -11] for ratios, +0.38 [+0.20, +0.55] for differences.
[[nodiscard]] std::string change_cell(const comparison& c) {
    if (std::isnan(c.change.value)) {
        return "-";
    }
    if (c.metric == "kld_mean") {
        const auto percent = [](double ratio) { return 100.0 * (ratio - 1.0); };
        return fmt::format("{:+.1f} % [{:+.1f}, {:+.1f}]",
                           percent(c.change.value),
                           percent(c.change.lo),
                           percent(c.change.hi));
    }
    return fmt::format("{:+.3f} [{:+.3f}, {:+.3f}]", c.change.value, c.change.lo, c.change.hi);
}

} // namespace

std::vector<comparison> compare_with(const evaluation_results& results,
                                     const std::string& against) {
    std::vector<comparison> comparisons;
    const std::vector<lm_group> texts = group_rows(results.texts);
    for (const lm_group& of : texts) {
        const lm_group* other = partner(texts, of, against);
        if (other == nullptr) {
            continue;
        }
        comparison c{of.task, "", of.policy, against, of.keep_ratio, "kld_mean"};
        c.samples = of.rows.size();
        c.change = bootstrap_ratio(of.each(divergence_of), other->each(divergence_of));
        comparisons.push_back(c);
        c.metric = "nll";
        c.change = bootstrap_difference(of.each(text_nll_of), other->each(text_nll_of));
        comparisons.push_back(c);
    }
    const std::vector<retrieval_group> dialogues = group_rows(results.dialogues);
    for (const retrieval_group& of : dialogues) {
        const retrieval_group* other = partner(dialogues, of, against);
        if (other == nullptr) {
            continue;
        }
        for (const std::string& turn : turns_of(of)) {
            comparison c{of.task, turn, of.policy, against, of.keep_ratio, "accuracy"};
            const std::vector<double> right = each_answer(of, turn, accuracy_of);
            c.samples = right.size();
            c.change = bootstrap_difference(right, each_answer(*other, turn, accuracy_of));
            comparisons.push_back(c);
            c.metric = "answer_nll";
            c.change = bootstrap_difference(each_answer(of, turn, nll_of),
                                            each_answer(*other, turn, nll_of));
            comparisons.push_back(c);
        }
    }
    return comparisons;
}

std::string table_of(const evaluation_results& results, const std::string& mode) {
    std::string text;
    if (!results.texts.empty()) {
        text += table_of(group_rows(results.texts));
    }
    if (!results.dialogues.empty()) {
        text += table_of(group_rows(results.dialogues), mode);
    }
    return text + "[95 %]: bootstrap over the n samples, 10000 times. MiB: held after compression; "
                  "smaller: than all rows in f16.\n";
}

std::string table_of(const std::vector<comparison>& comparisons) {
    if (comparisons.empty()) {
        return "";
    }
    std::vector<table_line> lines{
        {"task", "turn", "policy", "keep", "metric", "change [95 %]", "n"}};
    for (const comparison& c : comparisons) {
        if (c.turn.empty() || c.turn == "1" || c.turn == later_turns) {
            lines.push_back({c.task,
                             c.turn,
                             c.policy,
                             fmt::format("{:g}", c.keep_ratio),
                             c.metric,
                             change_cell(c),
                             fmt::format("{}", c.samples)});
        }
    }
    return fmt::format("\nChange against {}, sample by sample:\n", comparisons.front().against) +
           aligned(lines, 3);
}

nlohmann::json json_of(const evaluation_results& results, const std::string& mode) {
    nlohmann::json rows = nlohmann::json::array();
    for (const lm_row& row : results.texts) {
        rows.push_back(row_of(row));
    }
    for (const lm_group& of : group_rows(results.texts)) {
        rows.push_back(mean_of(of));
    }
    for (const retrieval_row& from : results.dialogues) {
        nlohmann::json row = row_of(from, mode);
        for (std::size_t t = 0; t < from.measured.turns.size(); ++t) {
            row["turn"] = t + 1;
            row["accuracy"] = accuracy_of(from.measured.turns[t]);
            row["answer_nll"] = finite(from.measured.turns[t].nll);
            rows.push_back(row);
        }
    }
    for (const retrieval_group& of : group_rows(results.dialogues)) {
        append_means(of, mode, rows);
    }
    return rows;
}

nlohmann::json json_of(const std::vector<comparison>& comparisons) {
    nlohmann::json rows = nlohmann::json::array();
    for (const comparison& c : comparisons) {
        rows.push_back({{"task", c.task},
                        {"turn", c.turn.empty() ? nlohmann::json(nullptr) : nlohmann::json(c.turn)},
                        {"policy", c.policy},
                        {"against", c.against},
                        {"keep_ratio", c.keep_ratio},
                        {"metric", c.metric},
                        {"change", finite(c.change.value)},
                        {"lo", finite(c.change.lo)},
                        {"hi", finite(c.change.hi)},
                        {"samples", c.samples}});
    }
    return rows;
}

nlohmann::json json_of(const kept_maps& kept, const std::vector<std::string>& pieces) {
    nlohmann::json maps = nlohmann::json::array();
    for (const kept_map& map : kept.maps) {
        nlohmann::json layers = nlohmann::json::array();
        for (std::size_t l = 0; l < kept.num_layers; ++l) {
            nlohmann::json heads = nlohmann::json::array();
            for (std::size_t head = 0; head < kept.num_kv_heads; ++head) {
                if (map.layers.empty()) {
                    heads.push_back(nullptr);
                } else {
                    const auto tokens = map.layers[l].kept(head);
                    heads.push_back(std::vector<std::uint32_t>(tokens.begin(), tokens.end()));
                }
            }
            layers.push_back(std::move(heads));
        }
        maps.push_back({{"name", kept.name},
                        {"policy", map.policy},
                        {"keep_ratio", map.keep_ratio},
                        {"context", kept.tokens.size()},
                        {"num_kv_heads", kept.num_kv_heads},
                        {"layers", std::move(layers)},
                        {"pieces", pieces}});
    }
    return maps;
}

} // namespace lab
