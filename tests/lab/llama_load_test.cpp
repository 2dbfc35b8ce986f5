// SPDX-License-Identifier: Apache-2.0
// Which files are taken for a Llama model.
#include "error.hpp"
#include "gguf_builder.hpp"
#include "tiny_model.hpp"
#include "weights.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace {

using lab_test::gguf_builder;
using lab_test::load;
using lab_test::tiny_model;

/// What loading complains about when one of the file's counts is replaced (or left out, as 0xFFFFFFFF).
std::string complaint_with(const std::string& key, std::uint32_t value) {
    const tiny_model tiny;
    gguf_builder builder;
    builder.string("general.architecture", "llama");
    for (const auto& [name, count] : tiny.counts()) {
        if (name != key) {
            builder.u32(name, count);
        } else if (value != ~0U) {
            builder.u32(name, value);
        }
    }
    builder.f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
    tiny.add_tensors(builder);
    try {
        static_cast<void>(load(builder));
        return "";
    } catch (const lab::input_error& error) {
        return error.what();
    }
}

TEST(LlamaLoad, RefusesMissingAndImpossibleCounts) {
    EXPECT_EQ(complaint_with("nothing", 0), "");
    for (const std::string key : {"llama.block_count",
                                  "llama.embedding_length",
                                  "llama.feed_forward_length",
                                  "llama.context_length",
                                  "llama.attention.head_count"}) {
        EXPECT_EQ(complaint_with(key, ~0U),
                  "model tiny.gguf: metadata key \"" + key + "\" is missing; it is required");
        EXPECT_EQ(complaint_with(key, 0),
                  "model tiny.gguf: metadata key \"" + key + "\" is 0; allowed: 1 to 1048576");
        EXPECT_EQ(complaint_with(key, 4000000000U),
                  "model tiny.gguf: metadata key \"" + key +
                      "\" is 4000000000; allowed: 1 to 1048576");
    }
    EXPECT_EQ(
        complaint_with("llama.attention.head_count_kv", 4),
        "model tiny.gguf: 6 query heads do not divide among 4 kv heads; a multiple is needed");
    EXPECT_NE(complaint_with("llama.attention.head_count_kv", ~0U)
                  .find("\"blk.0.attn_k.weight\" has shape"),
              std::string::npos); // then it is the number of query heads
    EXPECT_NE(
        complaint_with("llama.attention.key_length", ~0U).find("width 20 does not divide among 6"),
        std::string::npos);
    EXPECT_EQ(complaint_with("llama.attention.key_length", 7),
              "model tiny.gguf: head_dim is 7; RoPE needs an even number");
    EXPECT_EQ(complaint_with("llama.attention.value_length", 4),
              "model tiny.gguf: metadata key \"llama.attention.value_length\" is 4; supported: 8");
    EXPECT_EQ(complaint_with("llama.rope.dimension_count", 4),
              "model tiny.gguf: metadata key \"llama.rope.dimension_count\" is 4; supported: 8");
    EXPECT_EQ(complaint_with("llama.vocab_size", 51),
              "model tiny.gguf: metadata key \"llama.vocab_size\" is 51; supported: 50");
    EXPECT_EQ(complaint_with("llama.block_count", 3),
              "model tiny.gguf: tensor \"blk.2.attn_q.weight\" is missing; it is required");
    EXPECT_EQ(complaint_with("llama.block_count", 1).find("model tiny.gguf: tensor \"blk.1."),
              0U); // unread
    EXPECT_EQ(
        complaint_with("llama.feed_forward_length", 29),
        "model tiny.gguf: tensor \"blk.0.ffn_gate.weight\" has shape [20, 28]; [20, 29] is needed");
}

TEST(LlamaLoad, RefusesEveryMissingTensorAndAnyUnknownOne) {
    const tiny_model tiny;
    const auto complaint = [](const gguf_builder& builder) -> std::string {
        try {
            static_cast<void>(load(builder));
            return "";
        } catch (const lab::input_error& error) {
            return error.what();
        }
    };
    for (const auto& [missing, unused] : tiny.tensors) {
        tiny_model without = tiny;
        without.tensors.erase(missing);
        if (missing == "output.weight") { // then the embedding serves
            EXPECT_EQ(complaint(without.file()), "");
            continue;
        }
        EXPECT_EQ(complaint(without.file())
                      .find("model tiny.gguf: tensor \"" + missing + "\" is missing"),
                  0U);
    }
    gguf_builder bias = tiny.file();
    bias.f32_tensor("blk.0.attn_q.bias", {48}, std::vector<float>(48));
    EXPECT_EQ(
        complaint(bias).find("model tiny.gguf: tensor \"blk.0.attn_q.bias\" is not supported"), 0U);
}

TEST(LlamaLoad, NamesATensorThatIsNotFinite) {
    for (const std::string name :
         {"output_norm.weight", "token_embd.weight", "blk.1.attn_v.weight"}) {
        for (const float bad : {NAN, -INFINITY}) {
            tiny_model tiny;
            tiny.tensors.at(name).back() = bad;
            try {
                static_cast<void>(load(tiny.file()));
                ADD_FAILURE() << name << " was taken";
            } catch (const lab::input_error& error) {
                EXPECT_EQ(error.what(),
                          "model tiny.gguf: tensor \"" + name +
                              "\" holds NaN or infinity; finite numbers are needed");
            }
        }
    }
}

TEST(LlamaLoad, RefusesWhatItDoesNotCompute) {
    const auto complaint = [](auto&& spoil) -> std::string {
        gguf_builder builder;
        spoil(builder);
        try {
            static_cast<void>(load(builder));
            return "";
        } catch (const lab::input_error& error) {
            return error.what();
        }
    };
    EXPECT_EQ(complaint([](gguf_builder& b) { b.string("general.architecture", "qwen2"); }),
              "model tiny.gguf: architecture is \"qwen2\"; supported: \"llama\"");
    const auto with = [&](const std::string& key, auto&& add) {
        return complaint([&](gguf_builder& builder) {
            const tiny_model tiny;
            builder.string("general.architecture", "llama");
            for (const auto& [name, count] : tiny.counts()) {
                builder.u32(name, count);
            }
            for (const std::string name :
                 {"llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"}) {
                if (name != key) {
                    builder.f32(name, 1e-5F);
                }
            }
            add(builder, key);
            tiny.add_tensors(builder);
        });
    };
    const auto number = [](float value) {
        return [value](gguf_builder& builder, const std::string& key) { builder.f32(key, value); };
    };
    EXPECT_EQ(with("llama.rope.freq_base", number(1e4F)), "");
    EXPECT_EQ(
        with("llama.rope.freq_base", number(0.0F)),
        "model tiny.gguf: metadata key \"llama.rope.freq_base\" is 0; a positive number is needed");
    EXPECT_NE(with("llama.rope.freq_base", number(NAN)), "");
    EXPECT_NE(with("llama.attention.layer_norm_rms_epsilon", number(-1.0F)), "");
    EXPECT_NE(with("llama.attention.layer_norm_rms_epsilon", number(INFINITY)), "");
    EXPECT_EQ(
        with("llama.attention.layer_norm_rms_epsilon", [](gguf_builder&, const std::string&) {}),
        "model tiny.gguf: metadata key \"llama.attention.layer_norm_rms_epsilon\" is missing; it "
        "is required");
    EXPECT_EQ(
        with("llama.rope.scaling.type",
             [](gguf_builder& builder, const std::string& key) { builder.string(key, "yarn"); }),
        "model tiny.gguf: metadata key \"llama.rope.scaling.type\" is \"yarn\"; supported: "
        "\"none\"");
}

} // namespace
