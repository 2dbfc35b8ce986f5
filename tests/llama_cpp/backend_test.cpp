// SPDX-License-Identifier: Apache-2.0
/// The backend inside llama.cpp, on the real model with weights and cache in f32: what a context gives with it must be
/// what it gives without, whatever is done to its cache.
#include "plain_engine.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <unistd.h>

namespace llama_cpp {
namespace {

/// Three times what ggml's own logits differ by where a prompt is read in batches of another size; measured first.
double tolerance = 0.0;

const std::string prose = "The keeper of the lighthouse wrote down every ship that passed, its "
                          "flag, its course and the hour. In winter, when "
                          "nothing passed for days, he wrote down the wind instead, and when there "
                          "was no wind he wrote down that there was "
                          "none. His daughter asked him why. He said that a book with gaps is read "
                          "as if nobody had been there, and that a "
                          "night on which nothing happened is still a night somebody watched. ";

std::string long_prose(std::size_t times) {
    std::string text;
    for (std::size_t i = 0; i < times; ++i) {
        text += "Chapter " + std::to_string(i + 1) + ". " + prose;
    }
    return text;
}

/// The model with weights in f32, made once, and one context by ggml alone for every test: contexts made later have the
/// backend.
class LlamaBackend : public testing::Test {
protected:
    static void SetUpTestSuite() {
        const char* const given = std::getenv("KVCRUSH_MODEL");
        if (given == nullptr || *given == '\0') {
            return;
        }
        quiet();
        folder_ =
            std::filesystem::temp_directory_path() / ("kvcrush-" + std::to_string(::getpid()));
        std::filesystem::create_directories(folder_);
        const std::string in_floats = folder_ / "model-f32.gguf";
        llama_model_quantize_params params = llama_model_quantize_default_params();
        params.ftype = LLAMA_FTYPE_ALL_F32;
        params.allow_requantize = true;
        ASSERT_EQ(llama_model_quantize(given, in_floats.c_str(), &params), 0U);
        model_ = load_model(in_floats);
        // By ggml alone, before the backend is there.
        plain_ = std::make_unique<engine>(*model_, engine_options{});
        plain_four_ = std::make_unique<engine>(*model_, engine_options{.sequences = 4});
        plain_unified_ =
            std::make_unique<engine>(*model_, engine_options{.sequences = 4, .unified = true});
        engine other_batches(*model_, {.ubatch = 64});
        for (const std::size_t times : {1, 4}) {
            const std::vector<llama_token> prompt = tokens_of(*model_, long_prose(times));
            const double floor =
                largest_difference(other_batches.decode(prompt, 0), plain_->decode(prompt, 0));
            tolerance = std::max(tolerance, 3.0 * floor);
            llama_memory_clear(other_batches.memory(), true);
            llama_memory_clear(plain_->memory(), true);
        }
        std::printf("logits may differ by %.4f\n", tolerance);
        ASSERT_LT(tolerance, 0.2);
        registry_ = ggml_backend_load(KVCRUSH_GGML_BACKEND);
        ASSERT_NE(registry_, nullptr) << KVCRUSH_GGML_BACKEND;
    }
    static void TearDownTestSuite() {
        plain_.reset();
        plain_four_.reset();
        plain_unified_.reset();
        model_.reset();
        std::filesystem::remove_all(folder_);
    }
    void SetUp() override {
        ASSERT_NE(model_, nullptr) << "KVCRUSH_MODEL does not name the model";
        llama_memory_clear(plain_->memory(), true);
        llama_memory_clear(plain_four_->memory(), true);
        llama_memory_clear(plain_unified_->memory(), true);
        nodes_before_ = nodes_computed();
    }
    void TearDown() override {
        EXPECT_GT(nodes_computed(), nodes_before_) << "the backend was not asked";
    }

    static std::uint64_t nodes_computed() {
        using counter = std::uint64_t (*)();
        const auto count = reinterpret_cast<counter>(
            ggml_backend_reg_get_proc_address(registry_, "kvcrush_nodes_computed"));
        return count == nullptr ? 0 : count();
    }
    static void expect_same(const std::vector<float>& ours,
                            const std::vector<float>& theirs,
                            const char* what) {
        EXPECT_LE(largest_difference(ours, theirs), tolerance) << what;
    }

    static inline std::filesystem::path folder_;
    static inline model_ptr model_;
    static inline std::unique_ptr<engine> plain_;
    static inline std::unique_ptr<engine> plain_four_;
    static inline std::unique_ptr<engine> plain_unified_;
    static inline ggml_backend_reg_t registry_ = nullptr;
    std::uint64_t nodes_before_ = 0;
};

TEST_F(LlamaBackend, WritesTheSameTextFor200Tokens) {
    engine crush(*model_, {});
    const std::vector<llama_token> prompt = tokens_of(*model_, long_prose(3));
    std::vector<float> theirs = plain_->decode(prompt, 0);
    std::vector<float> ours = crush.decode(prompt, 0);
    expect_same(ours, theirs, "prompt");
    const int start = static_cast<int>(prompt.size());
    for (int i = 0; i < 200; ++i) {
        const llama_token next = likeliest(theirs);
        ASSERT_EQ(likeliest(ours), next) << "word " << i;
        theirs = plain_->decode({next}, start + i);
        ours = crush.decode({next}, start + i);
    }
}

TEST_F(LlamaBackend, SurvivesFlashAttentionLeftToLlama) {
    engine crush(*model_, {.flash = LLAMA_FLASH_ATTN_TYPE_AUTO});
    const std::vector<llama_token> prompt = tokens_of(*model_, prose);
    expect_same(crush.decode(prompt, 0), plain_->decode(prompt, 0), "auto");
}

TEST_F(LlamaBackend, TakesAnotherNumberOfThreadsAtAnyTime) {
    engine crush(*model_, {});
    const std::vector<llama_token> prompt = tokens_of(*model_, long_prose(4));
    int at = 0;
    const std::size_t half = prompt.size() / 2;
    const std::vector<llama_token> first(prompt.begin(), prompt.begin() + static_cast<long>(half));
    expect_same(crush.decode(first, 0), plain_->decode(first, 0), "one thread");
    at = static_cast<int>(half);
    for (const int threads : {2, 5, 1, 3}) {
        llama_set_n_threads(crush.context(), threads, threads);
        const std::vector<llama_token> some(prompt.begin() + at, prompt.begin() + at + 20);
        expect_same(crush.decode(some, at), plain_->decode(some, at), "other threads");
        at += 20;
    }
}

TEST_F(LlamaBackend, GoesOnFromASavedState) {
    const std::vector<llama_token> prompt = tokens_of(*model_, prose);
    const int end = static_cast<int>(prompt.size());
    engine first(*model_, {});
    static_cast<void>(first.decode(prompt, 0));
    std::vector<std::uint8_t> state(llama_state_seq_get_size(first.context(), 0));
    ASSERT_EQ(llama_state_seq_get_data(first.context(), state.data(), state.size(), 0),
              state.size());
    engine second(*model_, {});
    ASSERT_GT(llama_state_seq_set_data(second.context(), state.data(), state.size(), 0), 0U);
    static_cast<void>(plain_->decode(prompt, 0));
    const llama_token next = prompt.front();
    expect_same(second.decode({next}, end), plain_->decode({next}, end), "restored");
}

TEST_F(LlamaBackend, SeesGapsAndShiftsAsLlamaDoes) {
    engine crush(*model_, {});
    const std::vector<llama_token> prompt = tokens_of(*model_, long_prose(2));
    const int end = static_cast<int>(prompt.size());
    for (engine* each : {plain_.get(), &crush}) {
        static_cast<void>(each->decode(prompt, 0));
        ASSERT_TRUE(llama_memory_seq_rm(each->memory(), 0, 10, 40));
        ASSERT_TRUE(llama_memory_seq_rm(each->memory(), 0, 61, 62));
    }
    const std::vector<llama_token> more = tokens_of(*model_, "He closed the book");
    expect_same(crush.decode(more, end), plain_->decode(more, end), "gaps");
    expect_same(crush.decode({more[0]}, end + static_cast<int>(more.size())),
                plain_->decode({more[0]}, end + static_cast<int>(more.size())),
                "gaps, one word");
    for (engine* each : {plain_.get(), &crush}) { // as programs do whose context is full
        llama_memory_seq_add(each->memory(), 0, 62, -1, -30);
    }
    const int shifted = end + static_cast<int>(more.size()) + 1 - 30;
    expect_same(crush.decode({more[1]}, shifted), plain_->decode({more[1]}, shifted), "shifted");
}

void expect_parallel(engine& plain, engine& crush, const llama_model& model) {
    const std::vector<std::vector<llama_token>> prompts{tokens_of(model, long_prose(2)),
                                                        tokens_of(model, "Once upon a time"),
                                                        tokens_of(model, prose),
                                                        tokens_of(model, "In the year 1912")};
    std::vector<int> positions;
    std::vector<std::vector<llama_token>> next;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        const auto theirs = plain.decode(prompts[i], 0, static_cast<int>(i));
        EXPECT_LE(largest_difference(crush.decode(prompts[i], 0, static_cast<int>(i)), theirs),
                  tolerance)
            << "prompt " << i;
        positions.push_back(static_cast<int>(prompts[i].size()));
        next.push_back({likeliest(theirs)});
    }
    for (int step = 0; step < 6; ++step) { // all at once, one word each
        const auto theirs = plain.decode_all(next, {0, 1, 2, 3}, positions);
        const auto ours = crush.decode_all(next, {0, 1, 2, 3}, positions);
        for (std::size_t i = 0; i < next.size(); ++i) {
            EXPECT_LE(largest_difference(ours[i], theirs[i]), tolerance) << "slot " << i;
            next[i] = {likeliest(theirs[i])};
            ++positions[i];
        }
    }
    // Prompts of two sequences in one batch, of different lengths.
    const auto theirs =
        plain.decode_all({prompts[1], prompts[2]}, {1, 2}, {positions[1], positions[2]});
    const auto ours =
        crush.decode_all({prompts[1], prompts[2]}, {1, 2}, {positions[1], positions[2]});
    EXPECT_LE(largest_difference(ours[0], theirs[0]), tolerance);
    EXPECT_LE(largest_difference(ours[1], theirs[1]), tolerance);
}

TEST_F(LlamaBackend, ServesParallelSlotsWithStreamsOfTheirOwn) {
    engine crush(*model_, {.sequences = 4, .threads = 2});
    expect_parallel(*plain_four_, crush, *model_);
}

TEST_F(LlamaBackend, ServesParallelSlotsInOneCache) {
    engine crush(*model_, {.sequences = 4, .unified = true, .threads = 2});
    expect_parallel(*plain_unified_, crush, *model_);
}

TEST_F(LlamaBackend, ServesTwoModelsFromTwoThreads) {
    const model_ptr second = load_model(std::getenv("KVCRUSH_MODEL"));
    const std::vector<llama_token> prompt = tokens_of(*model_, long_prose(2));
    std::vector<float> ours[2];
    const auto run = [&](llama_model& model, std::vector<float>& logits) {
        engine crush(model, {.type = GGML_TYPE_Q8_0, .threads = 2});
        logits = crush.decode(prompt, 0);
        for (int i = 0; i < 20; ++i) {
            logits = crush.decode({likeliest(logits)}, static_cast<int>(prompt.size()) + i);
        }
    };
    std::vector<float> alone[2];
    run(*model_, alone[0]);
    run(*second, alone[1]);
    std::thread first([&] { run(*model_, ours[0]); });
    std::thread other([&] { run(*second, ours[1]); });
    first.join();
    other.join();
    EXPECT_EQ(ours[0], alone[0]);
    EXPECT_EQ(ours[1], alone[1]);
}

} // namespace
} // namespace llama_cpp
