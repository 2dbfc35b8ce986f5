// SPDX-License-Identifier: Apache-2.0
// Questions, resuming and what is said of them, on a model of a few thousand weights.
#include "error.hpp"
#include "evaluation.hpp"
#include "evaluation_report.hpp"
#include "journal.hpp"
#include "retrieval.hpp"
#include "tiny_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

namespace lab {
namespace {

using testing::HasSubstr;

std::vector<int> random_ids(std::size_t count, std::uint64_t stream) {
    std::vector<int> ids;
    for (std::size_t i = 0; i < count; ++i) {
        ids.push_back(static_cast<int>(kvcrush::random_bits(1, stream, i) % 50));
    }
    return ids;
}

dialogue tiny_dialogue(std::size_t index = 0, std::size_t num_turns = 2) {
    dialogue made{"tiny", "tiny-" + std::to_string(index), random_ids(120, index), {}};
    made.index = index;
    for (std::size_t t = 0; t < num_turns; ++t) {
        made.turns.push_back({random_ids(4, 100 + t), random_ids(3, 200 + t)});
    }
    return made;
}

matrix logits_of(const std::vector<std::vector<float>>& rows) {
    matrix logits(rows.size(), rows.front().size());
    for (std::size_t r = 0; r < rows.size(); ++r) {
        std::copy(rows[r].begin(), rows[r].end(), logits.row(r).begin());
    }
    return logits;
}

const llama& model() {
    static const llama loaded = lab_test::load(lab_test::tiny_model().file());
    return loaded;
}

/// What a cache that keeps all says of `answer` after `before`, in one pass over everything.
answer_score in_one_pass(std::vector<int> before, const std::vector<int>& answer) {
    before.insert(before.end(), answer.begin(), answer.end() - 1);
    kvcrush::kv_cache cache = model().make_cache(cache_type::f32);
    return score_answer(model().forward(before, cache, answer.size()), answer);
}

void append(std::vector<int>& to, const std::vector<int>& ids) {
    to.insert(to.end(), ids.begin(), ids.end());
}

TEST(Retrieval, ScoresAnAnswerByHand) {
    // Softmax of (0, log 3) is (1/4, 3/4); of equal logits 1/2 each, and the first wins.
    const matrix logits = logits_of({{0.0F, std::log(3.0F)}, {5.0F, 5.0F}});
    const answer_score right = score_answer(logits, std::vector<int>{1, 0});
    EXPECT_TRUE(right.exact);
    EXPECT_NEAR(right.nll, (std::log(4.0 / 3.0) + std::log(2.0)) / 2.0, 1e-6);
    const answer_score second_wrong = score_answer(logits, std::vector<int>{1, 1});
    EXPECT_FALSE(second_wrong.exact);
    EXPECT_NEAR(second_wrong.nll, right.nll, 1e-6);
    const answer_score first_wrong = score_answer(logits, std::vector<int>{0, 0});
    EXPECT_FALSE(first_wrong.exact) << "one wrong token is a wrong answer";
    EXPECT_NEAR(first_wrong.nll, (std::log(4.0) + std::log(2.0)) / 2.0, 1e-6);
}

TEST(Retrieval, AFullCacheAnswersAsOnePassOverTheConversation) {
    const dialogue about = tiny_dialogue(0, 3);
    for (const visibility mode : {visibility::agnostic, visibility::aware}) {
        const retrieval_plan plan{mode, conversation::turns, cache_type::f32};
        const prefilled_dialogue prefilled(model(), plan, about);
        for (const char* keeps_all : {"full", "snapkv"}) {
            const retrieval_result result = prefilled.ask(parse_policy(keeps_all), 1.0);
            EXPECT_EQ(result.context, mode == visibility::aware ? 123U : 120U);
            EXPECT_EQ(result.kept_tokens_mean, static_cast<double>(result.context));
            ASSERT_EQ(result.turns.size(), 3U);
            std::vector<int> before = about.context;
            for (std::size_t t = 0; t < 3; ++t) {
                append(before, about.turns[t].question);
                const answer_score expected = in_one_pass(before, about.turns[t].answer);
                EXPECT_NEAR(result.turns[t].nll, expected.nll, 1e-4);
                EXPECT_EQ(result.turns[t].exact, expected.exact);
                append(before, about.turns[t].answer);
            }
        }
    }
}

TEST(Retrieval, RequestsKnowNothingOfEachOther) {
    dialogue about = tiny_dialogue(0, 3);
    about.turns[2].alone = random_ids(5, 300);
    const retrieval_plan plan{visibility::agnostic, conversation::requests, cache_type::f32};
    const retrieval_result result =
        prefilled_dialogue(model(), plan, about).ask(parse_policy("full"), 1.0);
    for (std::size_t t = 0; t < 3; ++t) {
        std::vector<int> before = about.context;
        append(before, t == 2 ? about.turns[t].alone : about.turns[t].question);
        EXPECT_NEAR(result.turns[t].nll, in_one_pass(before, about.turns[t].answer).nll, 1e-4);
    }
    // Asked twice, a policy answers twice the same: copies leave the cache alone.
    const prefilled_dialogue prefilled(model(), plan, about);
    const auto once = prefilled.ask(parse_policy("snapkv"), 0.5);
    const auto again = prefilled.ask(parse_policy("snapkv"), 0.5);
    for (std::size_t t = 0; t < 3; ++t) {
        EXPECT_EQ(once.turns[t].nll, again.turns[t].nll);
    }
}

TEST(Retrieval, CompressesWhatWasReadBeforeTheQuestion) {
    const dialogue about = tiny_dialogue();
    const retrieval_plan plan{visibility::aware, conversation::turns, cache_type::f16};
    const retrieval_result result =
        prefilled_dialogue(model(), plan, about).ask(parse_policy("snapkv"), 0.5);
    EXPECT_EQ(result.context, 123U);
    EXPECT_EQ(result.kept_tokens_mean, 61.0) << "floor(123 / 2)";
    EXPECT_EQ(result.bytes_full, 2.0 * 2 * 2 * 16 * 123);
    EXPECT_LT(result.bytes_held, 0.6 * result.bytes_full);
}

template <typename F>
void expect_refusal(const F& what, const std::string& reason) {
    try {
        what();
        ADD_FAILURE() << "accepted, expected: " << reason;
    } catch (const std::invalid_argument& error) {
        EXPECT_THAT(error.what(), HasSubstr(reason));
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
}

TEST(Retrieval, RefusesBeforeTheWorkWhatWouldFailInIt) {
    const auto checking = [](const dialogue& about,
                             double ratio = 0.5,
                             visibility mode = visibility::agnostic,
                             conversation style = conversation::turns) {
        return [=] {
            check({mode, style},
                  {about},
                  {parse_policy("full"), parse_policy("snapkv")},
                  {ratio},
                  model());
        };
    };
    EXPECT_NO_THROW(checking(tiny_dialogue())());
    dialogue unknown = tiny_dialogue();
    unknown.turns[1].answer[0] = 50;
    expect_refusal(checking(unknown), "dialogue \"tiny-0\" holds token id 50; allowed: 0 to 49");
    dialogue too_long = tiny_dialogue();
    too_long.context = random_ids(690, 1);
    expect_refusal(checking(too_long), "the model reads 700");
    EXPECT_NO_THROW(checking(too_long, 0.5, visibility::agnostic, conversation::requests)());
    expect_refusal(checking(tiny_dialogue(), 0.1), "36");
    expect_refusal(checking(tiny_dialogue(), 0.5, visibility::aware, conversation::requests),
                   "alone");
}

class Journal : public testing::Test {
protected:
    ~Journal() override { std::filesystem::remove(path_); }
    [[nodiscard]] std::string path() const { return path_.string(); }
    void write(const std::string& content) const {
        std::ofstream(path_, std::ios::binary) << content;
    }
    [[nodiscard]] std::string content() const {
        std::ifstream file(path_, std::ios::binary);
        std::ostringstream text;
        text << file.rdbuf();
        return text.str();
    }

private:
    std::filesystem::path path_ = std::filesystem::temp_directory_path() /
                                  ("kvcrush-journal-" + std::to_string(getpid()) + ".jsonl");
};

TEST_F(Journal, RemembersWhatWasFinished) {
    const nlohmann::json settings = {{"mode", "aware"}, {"context", 12}};
    {
        journal fresh(path(), settings);
        EXPECT_EQ(fresh.size(), 0U);
        fresh.add("a", {{"value", 0.1}});
        fresh.add("b", 3);
        expect_refusal([&] { journal second(path(), settings); }, "in use");
    }
    const journal again(path(), settings);
    EXPECT_EQ(again.size(), 2U);
    ASSERT_NE(again.find("a"), nullptr);
    EXPECT_EQ(again.find("a")->at("value").get<double>(), 0.1) << "not rounded";
    EXPECT_EQ(again.find("c"), nullptr);
}

TEST_F(Journal, DropsALineThatWasNotFinished) {
    const nlohmann::json settings = {{"mode", "aware"}};
    { journal(path(), settings).add("a", 1); }
    const std::string whole = content();
    for (const std::size_t cut : std::initializer_list<std::size_t>{1, 5, 12}) {
        write(whole + std::string(R"({"key":"b","result":2})").substr(0, cut));
        journal resumed(path(), settings);
        EXPECT_EQ(resumed.size(), 1U);
        resumed.add("c", 3);
        EXPECT_EQ(content(), whole + "{\"key\":\"c\",\"result\":3}\n");
    }
    for (const std::string& start : {std::string(), whole.substr(0, 9)}) {
        write(start); // killed while the first line was written
        EXPECT_EQ(journal(path(), settings).size(), 0U);
        EXPECT_EQ(content(), whole.substr(0, whole.find('\n') + 1));
    }
}

TEST_F(Journal, RefusesOtherSettingsAndOtherFilesAndLeavesThemAlone) {
    { journal(path(), {{"mode", "aware"}, {"context", 12}}).add("a", 1); }
    const std::string whole = content();
    const auto opening = [&](const nlohmann::json& settings) {
        return [this, settings] { journal opened(path(), settings); };
    };
    expect_refusal(opening({{"mode", "agnostic"}, {"context", 12}}), "another mode");
    expect_refusal(opening({{"mode", "aware"}}), "another context");
    expect_refusal(opening({{"mode", "aware"}, {"context", 12}, {"x", 1}}), "another x");
    EXPECT_EQ(content(), whole);
    for (const std::string& other :
         {std::string("my thesis"), std::string("{\"results\": []}\n")}) {
        write(other);
        expect_refusal(opening({{"mode", "aware"}}), "another kind of file");
        EXPECT_EQ(content(), other);
    }
    write(whole.substr(0, whole.find('\n') + 1) + "{]\n");
    expect_refusal(opening({{"mode", "aware"}, {"context", 12}}), "broken at line 2");
    expect_refusal([] { journal opened("/tmp", {}); }, "no ordinary file");
    expect_refusal([] { journal opened("/no/such/folder/x", {}); }, "cannot be written");
}

evaluation tiny_evaluation() {
    evaluation all;
    all.plan.policies = parse_policies("full,snapkv,knorm");
    all.plan.keep_ratios = {0.75, 0.5};
    all.plan.type = cache_type::f32;
    all.texts = {{"windows", {"w", random_ids(100, 7), random_ids(20, 8)}}};
    all.dialogues = {tiny_dialogue(0), tiny_dialogue(1), tiny_dialogue(2)};
    return all;
}

/// Without times, which differ from run to run.
nlohmann::json timeless(const evaluation_results& results) {
    nlohmann::json rows = json_of(results, "agnostic");
    for (auto& row : rows) {
        for (const char* key : {"select_ms",
                                "compact_ms",
                                "prefill_ms",
                                "decode_ms_per_token",
                                "attention_ms_per_token"}) {
            row.erase(key);
        }
    }
    return rows;
}

TEST_F(Journal, AnEndedRunGoesOnWhereItWas) {
    const evaluation all = tiny_evaluation();
    const nlohmann::json expected = timeless(run(all, model()));
    struct killed {};
    double end = 0.0;
    for (const double part : {0.3, 0.5, 0.9}) { // ended three times, each time later
        journal done(path(), nlohmann::json::object());
        EXPECT_THROW(static_cast<void>(run(all,
                                           model(),
                                           &done,
                                           [&](double work, double total) {
                                               end = total;
                                               if (work > part * total) {
                                                   throw killed();
                                               }
                                           })),
                     killed);
    }
    EXPECT_GT(end, 0.0);
    {
        journal done(path(), nlohmann::json::object());
        EXPECT_GT(done.size(), 5U);
        const evaluation_results resumed = run(all, model(), &done);
        EXPECT_GT(resumed.read_back, 5U);
        EXPECT_LT(resumed.read_back, 20U);
        EXPECT_EQ(timeless(resumed), expected);
    }
    journal done(path(), nlohmann::json::object());
    const evaluation_results whole =
        run(all, model(), &done, [](double, double) { FAIL() << "there is nothing left to do"; });
    EXPECT_EQ(whole.read_back, 20U) << "5 rows of a text and of each of three dialogues";
    EXPECT_EQ(timeless(whole), expected);
    evaluation more = all;
    more.plan.policies = parse_policies("snapkv,full,tova");
    EXPECT_EQ(run(more, model(), &done).read_back, 12U) << "policies may be added";
}

TEST(Evaluation, HasEveryKeyOfTheContractInEveryRow) {
    const nlohmann::json rows = json_of(run(tiny_evaluation(), model()), "agnostic");
    // 5 texts, 5 means; 15 dialogue rows of 2 turns, 5 means of turns 1, 2 and 2+.
    ASSERT_EQ(rows.size(), 5U + 5 + 30 + 15);
    for (const auto& row : rows) {
        EXPECT_EQ(row.size(), rows.front().size());
        for (const char* key : {"task",
                                "mode",
                                "name",
                                "turn",
                                "policy",
                                "keep_ratio",
                                "accuracy",
                                "answer_nll",
                                "kld_mean",
                                "samples",
                                "seed",
                                "lo",
                                "hi"}) {
            EXPECT_TRUE(row.contains(key)) << key;
        }
        const bool asked = row["task"] == "tiny";
        EXPECT_EQ(row["accuracy"].is_null(), !asked);
        EXPECT_EQ(row["kld_mean"].is_null(), asked);
        EXPECT_EQ(row["turn"].is_null(), !asked);
        EXPECT_EQ(row["lo"].is_null(), row["name"] != "mean");
    }
}

/// Two dialogues of three turns, as two policies answered them.
evaluation_results by_hand() {
    evaluation_results results;
    const auto add =
        [&](const std::string& name, const std::string& policy, std::vector<answer_score> turns) {
            retrieval_result result;
            result.policy = policy;
            result.keep_ratio = policy == "full" ? 1.0 : 0.25;
            result.bytes_full = result.bytes_held = 1.0;
            result.turns = std::move(turns);
            results.dialogues.push_back({"task", name, std::nullopt, std::nullopt, result});
        };
    add("0", "full", {{true, 0.1}, {true, 0.2}, {true, 0.3}});
    add("0", "x", {{true, 0.3}, {false, 1.2}, {true, 0.5}});
    add("1", "full", {{true, 0.3}, {true, 0.4}, {false, 0.6}});
    add("1", "x", {{false, 0.9}, {false, 1.0}, {false, 2.0}});
    return results;
}

TEST(Evaluation, AveragesTurnsAsByHand) {
    const nlohmann::json rows = json_of(by_hand(), "aware");
    const auto mean = [&](const std::string& policy, const nlohmann::json& turn) {
        for (const auto& row : rows) {
            if (row["name"] == "mean" && row["policy"] == policy && row["turn"] == turn) {
                return row;
            }
        }
        return nlohmann::json();
    };
    EXPECT_DOUBLE_EQ(mean("x", 1)["accuracy"], 0.5);
    EXPECT_DOUBLE_EQ(mean("x", 1)["lo"], 0.0);
    EXPECT_DOUBLE_EQ(mean("x", 1)["hi"], 1.0);
    EXPECT_DOUBLE_EQ(mean("x", 1)["answer_nll"], 0.6);
    EXPECT_DOUBLE_EQ(mean("x", "2+")["accuracy"], 0.25);
    EXPECT_DOUBLE_EQ(mean("x", "2+")["answer_nll"], (0.85 + 1.5) / 2.0);
    EXPECT_DOUBLE_EQ(mean("full", "2+")["accuracy"], 0.75);
    EXPECT_EQ(mean("full", 3)["samples"], 2);
}

TEST(Evaluation, ComparesSampleBySample) {
    const auto comparisons = compare_with(by_hand(), "full");
    ASSERT_EQ(comparisons.size(), 8U) << "accuracy and nll of turns 1, 2, 3 and 2+ of x";
    EXPECT_EQ(comparisons[0].metric, "accuracy");
    EXPECT_DOUBLE_EQ(comparisons[0].change.value, -0.5);
    EXPECT_DOUBLE_EQ(comparisons[1].change.value, (0.2 + 0.6) / 2.0);
    EXPECT_NEAR(comparisons[1].change.lo, 0.2, 1e-12);
    EXPECT_NEAR(comparisons[1].change.hi, 0.6, 1e-12);
    EXPECT_EQ(comparisons[6].turn, "2+");
    EXPECT_DOUBLE_EQ(comparisons[6].change.value, -0.5);
    EXPECT_TRUE(compare_with(by_hand(), "nobody").empty());
    EXPECT_THAT(table_of(comparisons), HasSubstr("Change against full"));
}

} // namespace
} // namespace lab
