// SPDX-License-Identifier: Apache-2.0
#include "error.hpp"
#include "gguf.hpp"
#include "gguf_builder.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <sys/stat.h>
#include <vector>

namespace {

using lab_test::gguf_builder;
using lab_test::small_model;
using lab_test::temporary_file;

constexpr std::uint64_t huge = std::uint64_t{1} << 60U;

TEST(GgufFile, ReadsEveryScalarType) {
    gguf_builder builder;
    builder.scalar<std::uint8_t>("u8", 0, 200).scalar<std::int8_t>("i8", 1, -100);
    builder.scalar<std::uint16_t>("u16", 2, 60000).scalar<std::int16_t>("i16", 3, -30000);
    builder.scalar<std::uint32_t>("u32", 4, 4000000000U)
        .scalar<std::int32_t>("i32", 5, -2000000000);
    builder.scalar<float>("f32", 6, 0.5F)
        .scalar<std::uint8_t>("no", 7, 0)
        .scalar<std::uint8_t>("yes", 7, 1);
    builder.string("text", "hello").scalar<std::uint64_t>("u64", 10, huge);
    builder.scalar<std::int64_t>("i64", 11, 5).scalar<double>("f64", 12, -0.25);
    const temporary_file file(builder.bytes(), "scalars.gguf");
    const lab::gguf_file model(file.path());
    EXPECT_EQ(model.name(), "scalars.gguf");
    EXPECT_EQ(model.get_uint("u8"), 200U);
    EXPECT_EQ(std::get<std::int64_t>(*model.find("i8")), -100);
    EXPECT_EQ(model.get_uint("u16"), 60000U);
    EXPECT_EQ(std::get<std::int64_t>(*model.find("i16")), -30000);
    EXPECT_EQ(model.get_uint("u32"), 4000000000U);
    EXPECT_EQ(std::get<std::int64_t>(*model.find("i32")), -2000000000);
    EXPECT_EQ(model.get_float("f32"), 0.5);
    EXPECT_EQ(model.find_bool("no"), false);
    EXPECT_EQ(model.find_bool("yes"), true);
    EXPECT_EQ(model.get_string("text"), "hello");
    EXPECT_EQ(model.get_uint("u64"), huge);
    EXPECT_EQ(model.get_uint("i64"), 5U);
    EXPECT_EQ(model.get_float("f64"), -0.25);
    EXPECT_EQ(model.find_uint("absent"), std::nullopt);
}

TEST(GgufFile, ReadsArraysAndTensorsInBothVersions) {
    for (const std::uint32_t version : {2U, 3U}) {
        gguf_builder builder = small_model();
        builder.version = version;
        const temporary_file file(builder.bytes());
        const lab::gguf_file model(file.path());
        EXPECT_EQ(model.get_strings("words"), (std::vector<std::string_view>{"a", "", "ccc"}));
        EXPECT_EQ(model.get_integers("numbers"), (std::vector<std::int64_t>{-1, 0, 7}));
        ASSERT_EQ(model.tensors().size(), 2U);
        const lab::gguf_tensor* second = model.find_tensor("second");
        ASSERT_NE(second, nullptr);
        EXPECT_EQ(second->shape, (std::vector<std::uint64_t>{2, 2}));
        EXPECT_EQ(second->type, lab::tensor_type::f32);
        ASSERT_EQ(second->data.size(), 16U);
        float value = 0;
        std::memcpy(&value, second->data.data() + 8, sizeof value);
        EXPECT_EQ(value, 6.0F);
        EXPECT_EQ(model.find_tensor("third"), nullptr);
    }
}

TEST(GgufFile, SurvivesBeingMoved) {
    const temporary_file file(small_model().bytes());
    lab::gguf_file first(file.path());
    const lab::gguf_file second(std::move(first));
    EXPECT_EQ(second.get_string("general.architecture"), "llama");
    EXPECT_EQ(second.find_tensor("first")->data.size(), 12U);
}

TEST(GgufFile, HonoursItsOwnAlignment) {
    gguf_builder builder;
    builder.alignment = 8;
    builder.u32("general.alignment", 8);
    builder.f32_tensor("a", {1}, {1.0F}).f32_tensor("b", {1}, {2.0F});
    const temporary_file file(builder.bytes());
    const lab::gguf_file model(file.path());
    float value = 0;
    std::memcpy(&value, model.find_tensor("b")->data.data(), sizeof value);
    EXPECT_EQ(value, 2.0F);
}

TEST(GgufFile, NamesKeyAndTypeWhenAValueIsNotWhatIsAsked) {
    const temporary_file file(small_model().bytes(), "m.gguf");
    const lab::gguf_file model(file.path());
    const auto complaint = [&](auto&& ask) -> std::string {
        try {
            static_cast<void>(ask());
        } catch (const lab::input_error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_EQ(complaint([&] { return model.get_uint("general.architecture"); }),
              "model m.gguf: metadata key \"general.architecture\" is a string; needed: an "
              "unsigned integer");
    EXPECT_EQ(complaint([&] { return model.get_float("answer"); }),
              "model m.gguf: metadata key \"answer\" is an unsigned integer; needed: a float");
    EXPECT_EQ(
        complaint([&] { return model.get_strings("numbers"); }),
        "model m.gguf: metadata key \"numbers\" is an array of int32; needed: an array of string");
    EXPECT_EQ(
        complaint([&] { return model.get_integers("words"); }),
        "model m.gguf: metadata key \"words\" is an array of string; needed: an array of integers");
    EXPECT_EQ(complaint([&] { return model.get_string("nothing"); }),
              "model m.gguf: metadata key \"nothing\" is missing; it is required");
}

TEST(GgufFile, RefusesIntegersThatDoNotFit) {
    gguf_builder builder;
    builder.scalar<std::int32_t>("negative", 5, -3)
        .numbers<std::uint64_t>("large", 10, {1, ~std::uint64_t{0}});
    const temporary_file file(builder.bytes());
    const lab::gguf_file model(file.path());
    EXPECT_THROW(static_cast<void>(model.get_uint("negative")), lab::input_error);
    EXPECT_THROW(static_cast<void>(model.get_integers("large")), lab::input_error);
}

TEST(GgufFile, RefusesWhatIsNotAFile) {
    const temporary_file file("");
    EXPECT_THROW(lab::gguf_file(file.path()), lab::input_error);             // empty
    EXPECT_THROW(lab::gguf_file(file.folder()), lab::input_error);           // a folder
    EXPECT_THROW(lab::gguf_file(file.folder() + "/none"), lab::input_error); // missing
    const std::string fifo = file.folder() + "/fifo";
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
    EXPECT_THROW(lab::gguf_file{fifo}, lab::input_error); // would wait for a writer
    EXPECT_THROW(lab::gguf_file("/dev/null"), lab::input_error);
}

} // namespace
