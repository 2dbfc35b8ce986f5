// SPDX-License-Identifier: Apache-2.0
#include "turns.hpp"

#include "error.hpp"
#include "fidelity.hpp"
#include "matrix.hpp"
#include "plain_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

namespace turns {
namespace {

using llama_cpp::engine;
using tokens = std::vector<llama_token>;

constexpr std::size_t batch = 512;
constexpr int prompt_turns = 2;

/// CPU time of the process with one thread, wall time with more [ms].
[[nodiscard]] double now(int threads) {
    if (threads == 1) {
        timespec time{};
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
        return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
    }
    return std::chrono::duration<double, std::milli>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

/// Least and median of one side.
struct times {
    std::vector<double> all{};
    [[nodiscard]] double least() const { return *std::min_element(all.begin(), all.end()); }
    [[nodiscard]] double median() const {
        std::vector<double> sorted = all;
        std::nth_element(
            sorted.begin(), sorted.begin() + static_cast<long>(sorted.size() / 2), sorted.end());
        return sorted[sorted.size() / 2];
    }
};

/// Counts the nodes that the backend has computed.
class backend_counter {
public:
    explicit backend_counter(ggml_backend_reg_t registry)
        : count_(reinterpret_cast<std::uint64_t (*)()>(
              ggml_backend_reg_get_proc_address(registry, "kvcrush_nodes_computed"))) {
        if (count_ == nullptr) {
            lab::fail("the backend does not say what it computes; is it libggml-kvcrush.so?");
        }
    }
    [[nodiscard]] std::uint64_t operator()() const { return count_(); }

private:
    std::uint64_t (*count_)();
};

/// Both sides of one cache type.
struct sides {
    std::unique_ptr<engine> plain;
    std::unique_ptr<engine> crush;
};

class bench {
public:
    bench(const plan& wanted, const progress& show) : plan_(wanted), show_(show) {
        llama_cpp::quiet();
        llama_backend_init();
        model_ = load();
        const auto trained = static_cast<std::size_t>(llama_model_n_ctx_train(model_.get()));
        for (const std::size_t depth : wanted.depths) {
            if (depth < trained) {
                depths_.push_back(depth);
            } else {
                fmt::print(
                    stderr,
                    "kvcrush-llama-bench: depth {} is left out, as this model was trained on "
                    "{} tokens\n",
                    depth,
                    trained);
            }
        }
        if (depths_.empty()) {
            lab::fail("no depth is left: the model was trained on ", trained, " tokens");
        }
        text_ = llama_cpp::tokens_of(*model_, wanted.text);
        const std::size_t longest = std::max(depths_.back(), wanted.prompt);
        if (text_.size() < longest + compared_tokens + 1) {
            lab::fail("the text has ",
                      text_.size(),
                      " tokens; depth ",
                      longest,
                      " needs ",
                      longest + compared_tokens + 1);
        }
        cells_ = static_cast<std::uint32_t>((longest + compared_tokens + 256) / 256 * 256);
        // A context computes with what is loaded when it is made: ggml's first.
        for (const ggml_type type : wanted.types) {
            contexts_[type].plain = make_context(type);
        }
        if (!contexts_.contains(GGML_TYPE_F16)) {
            contexts_[GGML_TYPE_F16].plain = make_context(GGML_TYPE_F16);
        }
        registry_ = ggml_backend_load(wanted.backend.c_str());
        if (registry_ == nullptr) {
            lab::fail("llama.cpp does not load the backend ", lab::in_quotes(wanted.backend));
        }
        computed_ = std::make_unique<backend_counter>(registry_);
        for (const ggml_type type : wanted.types) {
            contexts_[type].crush = make_context(type);
        }
    }

    [[nodiscard]] std::vector<row> run() {
        steps_ = static_cast<double>(plan_.types.size()) *
                 (static_cast<double>(depths_.size() * plan_.threads.size()) + 2.0);
        for (const ggml_type type : plan_.types) {
            sides& both = contexts_[type];
            prompt(type, both);
            step();
            const losses lost = divergences(both);
            step();
            for (const std::size_t depth : depths_) {
                fill(both, depth);
                for (const int threads : plan_.threads) {
                    row line = decode(type, both, depth, threads);
                    if (depth == compared_depth()) {
                        line.kld = lost.kld;
                        line.kld_floors = lost.floors;
                        line.kld_to_f16_ggml = lost.to_f16_ggml;
                        line.kld_to_f16_kvcrush = lost.to_f16_kvcrush;
                    }
                    rows_.push_back(std::move(line));
                    step();
                }
            }
            llama_memory_clear(both.plain->memory(), true);
            llama_memory_clear(both.crush->memory(), true);
        }
        return std::move(rows_);
    }

private:
    [[nodiscard]] llama_cpp::model_ptr load() const {
        try {
            return llama_cpp::load_model(plan_.model);
        } catch (const std::runtime_error&) {
            lab::fail("llama.cpp cannot load the model ", lab::in_quotes(plan_.model));
        }
    }
    [[nodiscard]] std::unique_ptr<engine> make_context(ggml_type type) {
        try {
            return std::make_unique<engine>(
                *model_,
                llama_cpp::engine_options{.type = type, .tokens = cells_, .ubatch = batch});
        } catch (const std::runtime_error&) {
            lab::fail("llama.cpp makes no context of ",
                      cells_,
                      " cells of ",
                      ggml_type_name(type),
                      " for this model");
        }
    }
    void step() { show_(++done_, steps_); }
    [[nodiscard]] tokens part(std::size_t first, std::size_t count) const {
        return {text_.begin() + static_cast<long>(first),
                text_.begin() + static_cast<long>(first + count)};
    }
    /// Reads the tokens [first, end).
    void read(engine& to, std::size_t first, std::size_t end, std::size_t at_once = batch) const {
        for (std::size_t at = first; at < end; at += at_once) {
            static_cast<void>(
                to.decode(part(at, std::min(at_once, end - at)), static_cast<int>(at)));
        }
    }
    static void set_threads(const sides& both, int threads) {
        llama_set_n_threads(both.plain->context(), threads, threads);
        llama_set_n_threads(both.crush->context(), threads, threads);
    }
    /// Takes the time of both in turns, each time the other first.
    template <typename Work>
    std::pair<times, times> in_turns(int count, int threads, const sides& both, const Work& work) {
        std::pair<times, times> taken;
        for (int i = 0; i < count; ++i) {
            for (const bool crush : {i % 2 == 0, i % 2 != 0}) {
                const std::uint64_t before = (*computed_)();
                const double start = now(threads);
                work(crush ? *both.crush : *both.plain, i);
                (crush ? taken.second : taken.first).all.push_back(now(threads) - start);
                if (((*computed_)() > before) != crush) {
                    throw std::runtime_error(
                        crush ? "the backend was loaded, and not asked to compute"
                              : "the backend computed for a context that knows nothing of it");
                }
            }
        }
        return taken;
    }

    void prompt(ggml_type type, const sides& both) {
        if (plan_.prompt > 0) {
            const int threads = plan_.threads.front();
            set_threads(both, threads);
            const auto [plain, crush] = in_turns(prompt_turns, threads, both, [&](engine& to, int) {
                llama_memory_clear(to.memory(), false);
                read(to, 0, plan_.prompt);
            });
            rows_.push_back({.kind = what::prompt,
                             .type = ggml_type_name(type),
                             .depth = plan_.prompt,
                             .threads = threads,
                             .ggml_ms = plain.least(),
                             .kvcrush_ms = crush.least(),
                             .ggml_median_ms = plain.median(),
                             .kvcrush_median_ms = crush.median()});
        }
    }

    /// One cache in both: read with the backend, which is quicker, from where it was read to before.
    void fill(const sides& both, std::size_t depth) {
        set_threads(both, plan_.threads.back());
        read(*both.crush,
             static_cast<std::size_t>(llama_memory_seq_pos_max(both.crush->memory(), 0) + 1),
             depth);
        std::vector<std::uint8_t> state(llama_state_seq_get_size(both.crush->context(), 0));
        const std::size_t written =
            llama_state_seq_get_data(both.crush->context(), state.data(), state.size(), 0);
        llama_memory_clear(both.plain->memory(), true);
        if (llama_state_seq_set_data(both.plain->context(), state.data(), written, 0) == 0) {
            throw std::runtime_error("llama.cpp does not take its own state back");
        }
    }

    [[nodiscard]] row decode(ggml_type type, const sides& both, std::size_t depth, int threads) {
        set_threads(both, threads);
        std::vector<std::vector<float>> by_plain;
        std::vector<std::vector<float>> by_crush;
        const auto [plain, crush] =
            in_turns(static_cast<int>(compared_tokens), threads, both, [&](engine& to, int i) {
                const std::size_t at = depth + static_cast<std::size_t>(i);
                (&to == both.plain.get() ? by_plain : by_crush)
                    .push_back(to.decode(part(at, 1), static_cast<int>(at)));
            });
        lab::matrix crush_logits = matrix_of(by_crush);
        for (const engine* const each : {both.plain.get(), both.crush.get()}) {
            if (!llama_memory_seq_rm(each->memory(), 0, static_cast<int>(depth), -1)) {
                throw std::runtime_error("llama.cpp does not take tokens back");
            }
        }
        return {.kind = what::decode,
                .type = ggml_type_name(type),
                .depth = depth,
                .threads = threads,
                .ggml_ms = plain.least(),
                .kvcrush_ms = crush.least(),
                .ggml_median_ms = plain.median(),
                .kvcrush_median_ms = crush.median(),
                .kld_same_cache =
                    lab::compare(reference(matrix_of(by_plain), depth), crush_logits).kld_mean};
    }

    [[nodiscard]] std::size_t compared_depth() const { return depths_.front(); }

    [[nodiscard]] static lab::matrix matrix_of(const std::vector<std::vector<float>>& rows) {
        lab::matrix all(rows.size(), rows.front().size());
        for (std::size_t i = 0; i < rows.size(); ++i) {
            std::copy(rows[i].begin(), rows[i].end(), all.row(i).begin());
        }
        return all;
    }

    /// Predictions of the tokens behind the least depth, everything having been read by this context.
    [[nodiscard]] lab::matrix predictions(engine& of, std::size_t at_once) const {
        llama_memory_clear(of.memory(), true);
        const std::size_t depth = compared_depth();
        read(of, 0, depth, at_once);
        std::vector<std::vector<float>> logits;
        for (std::size_t i = 0; i < compared_tokens; ++i) {
            logits.push_back(of.decode(part(depth + i, 1), static_cast<int>(depth + i)));
        }
        llama_memory_clear(of.memory(), true);
        return matrix_of(logits);
    }
    /// What was predicted behind so many tokens, and what followed in the text.
    [[nodiscard]] lab::reference_predictions reference(lab::matrix logits,
                                                       std::size_t depth) const {
        const tokens truth = part(depth + 1, compared_tokens);
        return {std::move(logits), {truth.begin(), truth.end()}};
    }
    struct losses {
        double kld;
        std::array<double, other_batches.size()> floors;
        double to_f16_ggml;
        double to_f16_kvcrush;
    };
    [[nodiscard]] losses divergences(const sides& both) {
        set_threads(both, plan_.threads.back());
        if (f16_ == nullptr) {
            engine& f16 = *contexts_[GGML_TYPE_F16].plain;
            llama_set_n_threads(f16.context(), plan_.threads.back(), plan_.threads.back());
            f16_ = std::make_unique<lab::reference_predictions>(
                reference(predictions(f16, batch), compared_depth()));
        }
        const auto divergence = [](const lab::reference_predictions& from, lab::matrix of) {
            return lab::compare(from, of).kld_mean;
        };
        const lab::matrix plain = predictions(*both.plain, batch);
        const lab::matrix crush = predictions(*both.crush, batch);
        const lab::reference_predictions by_ggml = reference(plain, compared_depth());
        losses found{.kld = divergence(by_ggml, crush),
                     .floors = {},
                     .to_f16_ggml = divergence(*f16_, plain),
                     .to_f16_kvcrush = divergence(*f16_, crush)};
        for (std::size_t i = 0; i < other_batches.size(); ++i) {
            found.floors[i] = divergence(by_ggml, predictions(*both.plain, other_batches[i]));
        }
        return found;
    }

    const plan& plan_;
    const progress& show_;
    llama_cpp::model_ptr model_;
    std::vector<std::size_t> depths_; ///< those for which the model is made
    tokens text_;
    std::uint32_t cells_ = 0;
    std::map<ggml_type, sides> contexts_;
    ggml_backend_reg_t registry_ = nullptr;
    std::unique_ptr<backend_counter> computed_;
    std::unique_ptr<lab::reference_predictions> f16_;
    std::vector<row> rows_;
    double done_ = 0.0;
    double steps_ = 1.0;
};

} // namespace

std::vector<row> run(const plan& wanted, const progress& show) { return bench(wanted, show).run(); }

} // namespace turns
