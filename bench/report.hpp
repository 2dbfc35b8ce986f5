// SPDX-License-Identifier: Apache-2.0
/// @file
/// Bars, what was measured against them, and the two ways to look at that: a table and a list in JSON.
#pragma once

#include "measure.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush::bench {

enum class better { higher, lower };

/// One bar of one size and width.
struct row {
    std::string name;
    /// None if it could not be measured: `note` says why.
    std::optional<double> value{};
    double bar = 1.0;
    /// Otherwise nothing is promised: the row is there to be read.
    bool has_bar = true;
    better side = better::higher;
    std::string baseline{};
    std::string note{};

    std::size_t tokens = 0; ///< 0 where a row has no number of them
    std::size_t bits = 0;
    std::string variant{}; ///< the contestant the bar is about
    double spread = 0.0;
    /// Of every contestant that ran in the same rounds.
    std::vector<std::pair<std::string, double>> ns_per_token{};

    /// Figures are compared as they are shown: the third digit is noise.
    [[nodiscard]] bool holds() const noexcept {
        if (!value || !has_bar) {
            return false;
        }
        const double shown = rounded(*value);
        return side == better::higher ? shown >= bar : shown <= bar;
    }
    [[nodiscard]] static int decimals(double value) noexcept {
        const double size = std::fabs(value);
        return size < 0.1 ? 4 : size < 10.0 ? 2 : 1;
    }
    [[nodiscard]] static double rounded(double value) noexcept {
        const double step = std::pow(10.0, decimals(value));
        return std::round(value * step) / step;
    }
    /// What `variant` takes, or 0.
    [[nodiscard]] double own_ns_per_token() const noexcept {
        for (const auto& [name_of, ns] : ns_per_token) {
            if (name_of == variant) {
                return ns;
            }
        }
        return 0.0;
    }
};

/// Takes over what a round robin measured over `tokens` tokens a call.
inline void set_times(row& to, const timings& times, std::size_t tokens) {
    to.tokens = tokens;
    for (const timings::contestant& one : times.contestants()) {
        to.ns_per_token.emplace_back(one.name,
                                     times.median(one.name) / static_cast<double>(tokens));
    }
}

/// All rows, in the order in which they were measured.
class report {
public:
    void add(row one) { rows_.push_back(std::move(one)); }
    /// A bar that could not be measured.
    void add_void(row one, std::string reason) {
        one.value.reset();
        one.note = std::move(reason);
        rows_.push_back(std::move(one));
    }
    /// Rows that make no sense on this machine: named once, absent from table and list.
    void skip(std::string what, std::string reason) {
        skipped_.push_back(std::move(what) + ": " + std::move(reason));
    }

    /// Puts rows of the same bar together, from `begin` on: "hamming/probe" before "hamming/native".
    void group(std::size_t begin) {
        const auto bar_of = [](const row& one) {
            return one.name.substr(0, one.name.find('/', one.name.find('/') + 1));
        };
        std::vector<std::string> order;
        for (std::size_t i = begin; i < rows_.size(); ++i) {
            if (std::find(order.begin(), order.end(), bar_of(rows_[i])) == order.end()) {
                order.push_back(bar_of(rows_[i]));
            }
        }
        const auto place = [&](const row& one) {
            return std::find(order.begin(), order.end(), bar_of(one)) - order.begin();
        };
        std::stable_sort(rows_.begin() + static_cast<std::ptrdiff_t>(begin),
                         rows_.end(),
                         [&](const row& a, const row& b) { return place(a) < place(b); });
    }

    /// Prints the rows from `begin` on, one a line.
    void print(std::FILE* to, std::size_t begin = 0) const {
        std::size_t width = 40;
        for (std::size_t i = begin; i < rows_.size(); ++i) {
            width = (std::max)(width, rows_[i].name.size());
        }
        fmt::print(to,
                   "\n{:<{}} {:>7}  {:<7}  {:<5}  {:>4}  {:>9}  {}\n",
                   "name",
                   width,
                   "value",
                   "bar",
                   "holds",
                   "+-",
                   "ns/token",
                   "compared with");
        for (std::size_t i = begin; i < rows_.size(); ++i) {
            const row& one = rows_[i];
            const double ns = one.own_ns_per_token();
            fmt::print(
                to,
                "{:<{}} {:>7}  {:<7}  {:<5}  {:>4}  {:>9}  {}{}{}\n",
                one.name,
                width,
                one.value ? shown(*one.value) : "void",
                one.has_bar
                    ? fmt::format("{} {:g}", one.side == better::higher ? ">=" : "<=", one.bar)
                    : "-",
                !one.has_bar  ? "-"
                : one.holds() ? "yes"
                              : "NO",
                one.value ? fmt::format("{:.0f}%", 100.0 * one.spread) : "-",
                ns > 0.0 ? fmt::format("{:.4f}", ns) : "-",
                one.baseline,
                one.note.empty() || one.baseline.empty() ? "" : "; ",
                one.note);
        }
    }
    void print_summary(std::FILE* to) const {
        std::size_t bars = 0;
        std::size_t held = 0;
        std::size_t unmeasured = 0;
        for (const row& one : rows_) {
            if (!one.has_bar) {
                continue;
            }
            ++bars;
            held += one.holds() ? 1U : 0U;
            unmeasured += one.value ? 0U : 1U;
        }
        fmt::print(to,
                   "\n{} of {} bars hold, {} do not, {} could not be measured\n",
                   held,
                   bars,
                   bars - held - unmeasured,
                   unmeasured);
        for (const std::string& what : skipped_) {
            fmt::print(to, "skipped {}\n", what);
        }
    }

    [[nodiscard]] std::string to_json() const {
        nlohmann::ordered_json list = nlohmann::ordered_json::array();
        for (const row& one : rows_) {
            nlohmann::ordered_json object;
            object["name"] = one.name;
            object["value"] =
                one.value ? nlohmann::ordered_json(*one.value) : nlohmann::ordered_json(nullptr);
            object["bar"] =
                one.has_bar ? nlohmann::ordered_json(one.bar) : nlohmann::ordered_json(nullptr);
            object["better"] = one.side == better::higher ? "higher" : "lower";
            object["holds"] =
                one.has_bar ? nlohmann::ordered_json(one.holds()) : nlohmann::ordered_json(nullptr);
            object["baseline"] = one.baseline;
            if (!one.note.empty()) {
                object["note"] = one.note;
            }
            if (one.tokens != 0) {
                object["tokens"] = one.tokens;
            }
            if (one.bits != 0) {
                object["bits"] = one.bits;
            }
            if (!one.variant.empty()) {
                object["variant"] = one.variant;
            }
            if (one.value) {
                object["spread"] = one.spread;
            }
            for (const auto& [contestant, ns] : one.ns_per_token) {
                object["ns_per_token"][contestant] = ns;
            }
            list.push_back(std::move(object));
        }
        return list.dump(1) + "\n";
    }

    [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }

private:
    /// As row::holds() compares it.
    static std::string shown(double value) {
        return fmt::format("{:.{}f}", value, row::decimals(value));
    }

    std::vector<row> rows_;
    std::vector<std::string> skipped_;
};

} // namespace kvcrush::bench
