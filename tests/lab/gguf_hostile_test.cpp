// SPDX-License-Identifier: Apache-2.0
// Files that lie: each is refused in one line, before anything it says is believed.
#include "error.hpp"
#include "gguf.hpp"
#include "gguf_builder.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace {

using lab_test::gguf_builder;
using lab_test::put;
using lab_test::put_string;
using lab_test::small_model;
using lab_test::temporary_file;

constexpr std::uint64_t huge = std::uint64_t{1} << 60U;

/// What opening the file complains about; "" if it does not.
std::string complaint_about(std::string_view bytes, std::string_view name = "x.gguf") {
    const temporary_file file(bytes, name);
    try {
        const lab::gguf_file model(file.path());
        return "";
    } catch (const lab::input_error& error) {
        return error.what();
    }
}

std::string complaint_about(const gguf_builder& builder) {
    return complaint_about(builder.bytes());
}

testing::AssertionResult one_line(const std::string& text) {
    for (const char letter : text) {
        if (letter < ' ' || letter > '~') {
            return testing::AssertionFailure() << "unprintable byte in: " << text;
        }
    }
    return testing::AssertionSuccess();
}

TEST(GgufHostile, EveryTruncationIsRefusedInOneLine) {
    const std::string whole = small_model().bytes();
    ASSERT_EQ(complaint_about(whole), "");
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const std::string complaint = complaint_about(std::string_view(whole).substr(0, size));
        EXPECT_NE(complaint, "") << "cut to " << size << " of " << whole.size() << " bytes";
        EXPECT_TRUE(one_line(complaint));
    }
}

TEST(GgufHostile, EverySingleChangedByteIsReadOrRefused) {
    const std::string whole = small_model().bytes();
    for (std::size_t at = 0; at < whole.size(); ++at) {
        for (const char value : {'\x00', '\x01', '\x7F', '\xFF'}) {
            std::string changed = whole;
            changed[at] = value;
            EXPECT_TRUE(one_line(complaint_about(changed)));
        }
    }
}

TEST(GgufHostile, MagicAndVersion) {
    gguf_builder builder = small_model();
    builder.magic = "GG\nF";
    EXPECT_EQ(complaint_about(builder),
              "model x.gguf: magic is \"GG\\x0aF\"; a GGUF file starts with \"GGUF\"");
    builder.magic = "GGUF";
    builder.version = 1;
    EXPECT_EQ(complaint_about(builder), "model x.gguf: GGUF version is 1; supported: 2, 3");
    builder.version = 0x03000000; // the other byte order
    EXPECT_EQ(complaint_about(builder), "model x.gguf: GGUF version is 50331648; supported: 2, 3");
}

TEST(GgufHostile, CountsBeyondTheFile) {
    gguf_builder values = small_model();
    values.extra_values = huge;
    EXPECT_NE(complaint_about(values).find("metadata count is 1152921504606846980; the "),
              std::string::npos);
    gguf_builder tensors = small_model();
    tensors.extra_tensors = huge;
    EXPECT_NE(complaint_about(tensors).find("tensor count is 1152921504606846978; the "),
              std::string::npos);
    gguf_builder one_more = small_model();
    one_more.extra_tensors = 1; // fits in the bytes, but they are data
    EXPECT_NE(complaint_about(one_more), "");
}

TEST(GgufHostile, LengthsBeyondTheFile) {
    std::string length;
    put(length, huge);
    gguf_builder text;
    text.raw("text", 8, length + "short");
    EXPECT_EQ(complaint_about(text),
              "model x.gguf: a metadata value needs 1152921504606846976 bytes at offset "
              "48; 5 are left in the file");
    for (const std::uint32_t type : {0U, 6U, 8U, 12U}) {
        std::string array;
        put(array, type);
        put(array, huge);
        gguf_builder builder;
        builder.raw("list", 9, array + std::string(64, 'x'));
        EXPECT_NE(complaint_about(builder).find(
                      "metadata key \"list\" is an array of 1152921504606846976 x "),
                  std::string::npos);
    }
    std::string strings; // the count fits, the second string does not
    put<std::uint32_t>(strings, 8);
    put<std::uint64_t>(strings, 2);
    put_string(strings, "fine");
    put(strings, huge);
    gguf_builder builder;
    builder.raw("list", 9, strings);
    EXPECT_NE(complaint_about(builder).find("a string of an array needs"), std::string::npos);
}

TEST(GgufHostile, ArraysOfArraysAndUnknownTypes) {
    std::string nested;
    put<std::uint32_t>(nested, 9);
    put<std::uint64_t>(nested, 1);
    put<std::uint32_t>(nested, 4);
    put<std::uint64_t>(nested, 0);
    gguf_builder builder;
    builder.raw("list", 9, nested);
    EXPECT_EQ(complaint_about(builder),
              "model x.gguf: metadata key \"list\" is an array of type 9 (array); "
              "supported: arrays of numbers, bools and strings");
    gguf_builder unknown;
    unknown.u32("fine", 1).raw("odd", 13, "12345678");
    EXPECT_EQ(complaint_about(unknown),
              "model x.gguf: metadata key \"odd\" has type 13; allowed: 0 to 12");
    gguf_builder boolean;
    boolean.scalar<std::uint8_t>("flag", 7, 2);
    EXPECT_EQ(complaint_about(boolean),
              "model x.gguf: metadata key \"flag\" is a bool of value 2; allowed: 0, 1");
}

TEST(GgufHostile, NamesThatOccurTwice) {
    gguf_builder keys;
    keys.u32("key", 1).u32("key", 2);
    EXPECT_EQ(complaint_about(keys),
              "model x.gguf: metadata key \"key\" occurs twice; keys must differ");
    gguf_builder tensors;
    tensors.f32_tensor("same", {1}, {1.0F}).f32_tensor("same", {1}, {2.0F});
    EXPECT_EQ(complaint_about(tensors),
              "model x.gguf: tensor \"same\" occurs twice; names must differ");
}

TEST(GgufHostile, NamesThatWouldBreakTheLine) {
    gguf_builder builder;
    const std::string name = "a\nb\x1b[31m" + std::string(1000, 'z');
    builder.u32(name, 1).u32(name, 2);
    const std::string complaint = complaint_about(builder);
    EXPECT_TRUE(one_line(complaint));
    EXPECT_LT(complaint.size(), 250U);
}

TEST(GgufHostile, Alignment) {
    for (const std::uint32_t alignment : {0U, 1U, 4U, 24U, 33U, 0x80000000U}) {
        gguf_builder builder = small_model();
        builder.u32("general.alignment", alignment);
        EXPECT_EQ(complaint_about(builder),
                  "model x.gguf: metadata key \"general.alignment\" is " +
                      std::to_string(alignment) + "; allowed: powers of two from 8 to 1073741824");
    }
    gguf_builder text = small_model();
    text.string("general.alignment", "32");
    EXPECT_EQ(complaint_about(text),
              "model x.gguf: metadata key \"general.alignment\" is not an unsigned integer");
    gguf_builder large = small_model(); // the data section would start behind the end
    large.u32("general.alignment", 1U << 20U);
    EXPECT_NE(complaint_about(large).find("the data section of the file has 0"), std::string::npos);
}

TEST(GgufHostile, TensorShapes) {
    const auto complaint =
        [](const std::vector<std::uint64_t>& shape, std::uint32_t type, std::uint64_t offset) {
            gguf_builder builder;
            builder.f32_tensor("data", {32}, std::vector<float>(32))
                .tensor_info("t", shape, type, offset);
            return complaint_about(builder);
        };
    EXPECT_EQ(complaint({4}, 0, 0), "");
    EXPECT_EQ(complaint({}, 0, 0), "model x.gguf: tensor \"t\" has 0 dimensions; allowed: 1 to 4");
    EXPECT_EQ(complaint({1, 1, 1, 1, 1}, 0, 0),
              "model x.gguf: tensor \"t\" has 5 dimensions; allowed: 1 to 4");
    EXPECT_EQ(complaint({4, 0}, 0, 0),
              "model x.gguf: tensor \"t\" has shape [4, 0]; every dimension must be at least 1");
    EXPECT_EQ(complaint({huge, huge}, 0, 0),
              "model x.gguf: tensor \"t\" has shape [1152921504606846976, 1152921504606846976]; "
              "its size in bytes "
              "must be less than 2 to the 64");
    EXPECT_NE(complaint({huge, 8}, 0, 0).find("less than 2 to the 64"), std::string::npos);
    EXPECT_NE(complaint({huge, 0, huge}, 0, 0).find("at least 1"), std::string::npos);
    EXPECT_EQ(complaint({huge}, 0, 0),
              "model x.gguf: tensor \"t\" has 4611686018427387904 bytes at offset 0; the "
              "data section of the file has 128");
    EXPECT_EQ(complaint({33}, 3, 0),
              "model x.gguf: tensor \"t\" has rows of 33 numbers; Q4_1 needs a multiple of 32");
}

TEST(GgufHostile, TensorOffsets) {
    const auto complaint = [](std::uint64_t offset) {
        gguf_builder builder;
        builder.f32_tensor("data", {32}, std::vector<float>(32)).tensor_info("t", {8}, 0, offset);
        return complaint_about(builder);
    };
    EXPECT_EQ(complaint(96), "");
    EXPECT_EQ(complaint(33),
              "model x.gguf: tensor \"t\" has offset 33; a multiple of the alignment 32 is needed");
    EXPECT_NE(complaint(128).find("32 bytes at offset 128; the data section"), std::string::npos);
    EXPECT_NE(complaint(std::numeric_limits<std::uint64_t>::max() - 31).find("the data section"),
              std::string::npos);
}

TEST(GgufHostile, TensorTypesThatAreNotSupported) {
    const auto complaint = [](std::uint32_t type) {
        gguf_builder builder;
        builder.tensor_info("blk.0.attn_q.weight", {256}, type, 0);
        return complaint_about(builder);
    };
    EXPECT_EQ(
        complaint(14),
        "model x.gguf: tensor \"blk.0.attn_q.weight\" has type 14 (Q6_K); supported: F32, F16, "
        "Q8_0, Q4_0, Q4_1");
    EXPECT_NE(complaint(30).find("type 30 (BF16)"), std::string::npos);
    EXPECT_NE(complaint(31).find("type 31 (unknown)"), std::string::npos);
    EXPECT_NE(complaint(~0U).find("type 4294967295 (unknown)"), std::string::npos);
}

} // namespace
