// SPDX-License-Identifier: Apache-2.0
// The page of results: a section stands there when there is something for it, and bad input leaves no page behind.
#include "run_program.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using lab_test::outcome;
using lab_test::read_whole;
using lab_test::run_in_shell;
using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

outcome report(const std::string& arguments, const std::string& environment = "") {
    return lab_test::run_lab("report " + arguments, environment);
}

bool matplotlib_is_there() {
    static const bool found =
        run_in_shell("if [ -x /usr/bin/python3 ]; then p=/usr/bin/python3; else p=python3; fi; "
                     "\"${KVCRUSH_PYTHON:-$p}\" -c 'import matplotlib'")
            .code == 0;
    return found;
}

class ReportPage : public testing::Test {
protected:
    [[nodiscard]] std::string path(const std::string& name) const { return files_.path(name); }
    [[nodiscard]] std::string file(const std::string& name, const std::string& content) const {
        return files_.file(name, content);
    }

    /// One line that says why, code 2, and no new file.
    void expect_refusal(const std::string& arguments,
                        const std::string& text,
                        const std::string& environment = "") const {
        const std::size_t before = files_.num_files();
        const outcome result = report(arguments, environment);
        EXPECT_EQ(result.code, 2) << arguments << "\n" << result.output;
        EXPECT_THAT(result.output, HasSubstr(text)) << arguments;
        EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
        EXPECT_EQ(files_.num_files(), before) << arguments;
    }

    /// The page of one file with these results, and more keys beside them.
    [[nodiscard]] std::string page_of(const json& results, json document = json::object()) const {
        document["model"] = "tiny.gguf";
        document["results"] = results;
        const outcome result =
            report(file("in.json", document.dump()) + " --out " + path("out.html"));
        EXPECT_EQ(result.code, 0) << result.output;
        return read_whole(path("out.html"));
    }

private:
    lab_test::scratch_folder files_;
};

class DrawnReportPage : public ReportPage {
protected:
    void SetUp() override {
        if (!matplotlib_is_there()) {
            GTEST_SKIP() << "the page needs matplotlib (Debian: python3 python3-matplotlib)";
        }
    }
};

json row(const std::string& policy, double keep_ratio) {
    return {{"task", "t"}, {"mode", nullptr}, {"policy", policy}, {"keep_ratio", keep_ratio}};
}

json with(json result, const json& more) {
    result.update(more);
    return result;
}

/// What is true of every page: all but the sections named here are missing.
void expect_sections(const std::string& page, const std::vector<std::string>& expected) {
    std::vector<std::string> found;
    const std::string start = "<section id=\"";
    for (std::size_t at = page.find(start); at != std::string::npos; at = page.find(start, at)) {
        at += start.size();
        found.push_back(page.substr(at, page.find('"', at) - at));
    }
    EXPECT_EQ(found, expected);
    EXPECT_THAT(page, testing::EndsWith("</html>\n"));
    for (const std::string& name : found) {
        const std::size_t begin = page.find(start + name);
        const std::string body = page.substr(begin, page.find("</section>", begin) - begin);
        EXPECT_THAT(body, HasSubstr("<h2>")) << name;
        EXPECT_THAT(body, HasSubstr("<p>")) << name;
        EXPECT_THAT(body, HasSubstr("<table")) << name;
        if (name != "summary") {
            EXPECT_THAT(body, HasSubstr("<svg role=\"img\" aria-label=\"")) << name;
            EXPECT_THAT(body, HasSubstr("<details>")) << name;
        }
    }
}

/// Nothing that a browser would fetch.
void expect_self_contained(const std::string& page) {
    for (const char* fetched :
         {"http://", "https://", "<link", "@import", "src=\"", "src='", "@font-face"}) {
        EXPECT_THAT(page, Not(HasSubstr(fetched)));
    }
}

json loss_rows() {
    json rows = json::array({with(row("full", 1.0),
                                  {{"name", "mean"},
                                   {"context", 512},
                                   {"bytes_full", 4096},
                                   {"bytes_held", 4096},
                                   {"kld_mean", 0.0}})});
    for (const char* policy : {"random", "snapkv", "my_own(snapkv,$x_1$)"}) {
        for (const double ratio : {0.5, 0.25}) {
            rows.push_back(with(row(policy, ratio),
                                {{"name", "mean"},
                                 {"context", 512},
                                 {"bytes_full", 4096},
                                 {"bytes_held", 4096 * ratio},
                                 {"kld_mean", 0.1 / ratio},
                                 {"lo", 0.05},
                                 {"hi", 0.5},
                                 {"accuracy", nullptr}}));
        }
    }
    return rows;
}

TEST_F(DrawnReportPage, ShowsLossAgainstBytes) {
    const std::string page = page_of(loss_rows());
    expect_sections(page, {"summary", "loss"});
    expect_self_contained(page);
    EXPECT_THAT(page, HasSubstr("my_own(snapkv,$x_1$)"));
    EXPECT_THAT(page, HasSubstr("Pareto"));
    EXPECT_THAT(page, HasSubstr("full cache: 0"));
    EXPECT_EQ(page_of(loss_rows()), page) << "the same file gives the same page";
}

TEST_F(DrawnReportPage, ShowsAccuracyPerTurnAndLaterTurnsTogether) {
    json rows = json::array();
    for (const json& turn : json::array({1, 2, "2+"})) {
        rows.push_back(with(row("full", 1.0), {{"turn", turn}, {"accuracy", 1.0}}));
        rows.push_back(with(row("snapkv", 0.25), {{"turn", turn}, {"accuracy", 0.37}}));
    }
    const std::string page = page_of(rows);
    expect_sections(page, {"summary", "accuracy"});
    EXPECT_THAT(page, HasSubstr(">.37</text>"));
    EXPECT_THAT(page, HasSubstr(">2+</text>"));
    EXPECT_THAT(page, HasSubstr("later turns"));
}

TEST_F(DrawnReportPage, ShowsNeedlesByDepthAndLength) {
    json rows = json::array();
    for (const double depth : {0.0, 0.5, 1.0}) {
        for (const int context : {512, 1024}) {
            rows.push_back(with(row("snapkv", 0.25),
                                {{"depth", depth}, {"context", context}, {"accuracy", 0.5}}));
        }
    }
    expect_sections(page_of(rows), {"summary", "depth", "accuracy"});
}

TEST_F(DrawnReportPage, ShowsSpeedAndMemoryForOneContextAndForSeveral) {
    json rows = json::array();
    for (const int context : {512, 1024}) {
        for (const char* policy : {"full", "snapkv"}) {
            rows.push_back(with(row(policy, 0.25),
                                {{"context", context},
                                 {"bytes_held", 4096},
                                 {"bytes_full", 8192},
                                 {"decode_ms_per_token", 20.0}}));
        }
        expect_sections(page_of(rows), {"speed"});
    }
}

TEST_F(DrawnReportPage, ShowsTheTimeOfSelectionPerLayerIfItKnowsHowManyThereAre) {
    const json rows = json::array({with(row("snapkv", 0.25), {{"select_ms", 60.0}})});
    const std::string unknown = page_of(rows);
    expect_sections(unknown, {"select"});
    EXPECT_THAT(unknown, HasSubstr("all layers together"));
    EXPECT_THAT(page_of(rows, {{"num_layers", 30}}), HasSubstr("<td class=\"n\">2</td>"));
}

TEST_F(DrawnReportPage, ShowsWhichTokensEachHeadKeeps) {
    const json kept = {{"policy", "snapkv"},
                       {"context", 4},
                       {"num_kv_heads", 2},
                       {"layers", {{{0, 3}, {0, 1}}, {{0, 1, 2, 3}, nullptr}}},
                       {"pieces", {"a", " <b>", "\n", "d"}}};
    const std::string page = page_of(json::array(), {{"kept_map", kept}});
    expect_sections(page, {"kept"});
    EXPECT_THAT(page, HasSubstr("title=\"token 3: 3 of 4 heads\""));
    EXPECT_THAT(page, HasSubstr("&lt;b&gt;"));
    json all = kept;
    all["policy"] = "everything";
    all["layers"] =
        json::array({json::array({nullptr, nullptr}), json::array({{3, 0, 1, 2}, nullptr})});
    json other = kept;
    other["policy"] = "knorm";
    const std::string several =
        page_of(json::array(), {{"kept_map", json::array({all, kept, other})}});
    expect_sections(several, {"kept"});
    EXPECT_THAT(several, HasSubstr("keep all tokens: <code>everything</code>"));
    EXPECT_THAT(several, HasSubstr("<details><summary>knorm, ")) << "the first is open";
    EXPECT_THAT(several, Not(HasSubstr("<figcaption>everything")));
    EXPECT_THAT(page_of(json::array(), {{"kept_map", all}}), HasSubstr("<figcaption>everything"))
        << "there is nothing else to show";
}

TEST_F(DrawnReportPage, PutsPoliciesWithTheirOwnShareTogether) {
    const json rows =
        json::array({with(row("full", 1.0), {{"accuracy", 1.0}, {"turn", 1}}),
                     with(row("tova", 0.25), {{"accuracy", 0.5}, {"turn", 1}}),
                     with(row("four_times", 1.0), {{"accuracy", 0.75}, {"turn", 1}}),
                     with(row("eight_times", 0.52), {{"accuracy", 0.7}, {"turn", 1}})});
    const std::string page = page_of(rows, {{"arguments", {{"keep_ratio", "0.25"}}}});
    expect_sections(page, {"summary", "accuracy"});
    EXPECT_THAT(page, HasSubstr("<th scope=\"col\">their own share</th>"));
    EXPECT_THAT(page, Not(HasSubstr("<th scope=\"col\">0.52 of the tokens</th>")));
    EXPECT_THAT(page, HasSubstr("<td class=\"n\">0.52</td>")) << "the table says which";
    EXPECT_THAT(page_of(rows), HasSubstr("<th scope=\"col\">0.52 of the tokens</th>"))
        << "a file that does not say what was asked for";
}

TEST_F(DrawnReportPage, TakesAMeanInsteadOfItsPartsAndPutsFilesTogether) {
    json rows = json::array({with(row("snapkv", 0.25), {{"name", "a"}, {"accuracy", 0.31}}),
                             with(row("snapkv", 0.25), {{"name", "b"}, {"accuracy", 0.33}}),
                             with(row("snapkv", 0.25), {{"name", "mean"}, {"accuracy", 0.32}})});
    const std::string first = file("first.json", json{{"results", rows}}.dump());
    rows = json::array({with(row("h2o", 0.25), {{"accuracy", 0.71}})});
    const std::string second = file("second.json", json{{"results", rows}}.dump());
    const outcome result = report(first + " " + second);
    ASSERT_EQ(result.code, 0) << result.output;
    const std::string page = read_whole(path("first.html"));
    EXPECT_THAT(page, HasSubstr("<b>0.32</b>"));
    EXPECT_THAT(page, HasSubstr("<b>0.71</b>"));
    EXPECT_THAT(page, Not(HasSubstr("0.31")));
}

TEST_F(DrawnReportPage, IsNotImpressedByHostileText) {
    const std::string name = "<script>alert(1)</script>\"'&\\$";
    const std::string page = page_of(json::array(
        {with(row(name, 0.25), {{"task", name}, {"name", name}, {"accuracy", 0.5}, {"turn", 1}})}));
    EXPECT_THAT(page, Not(HasSubstr("<script>alert")));
    EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert"));
}

TEST_F(DrawnReportPage, RefusesWhatHoldsNoResults) {
    const auto refuse = [&](const std::string& content, const std::string& text) {
        expect_refusal(file("bad.json", content) + " --out " + path("out.html"), text);
    };
    refuse("", "is no JSON");
    refuse("hello", "is no JSON");
    refuse("\xFF\xFE", "is no JSON");
    refuse(std::string(200000, '['), "is no JSON");
    refuse("[]", "no list of results");
    refuse("{}", "no list of results");
    refuse(R"({"results": 5})", "no list of results");
    refuse(R"({"results": []})", "empty list of results");
    refuse(R"({"results": [3]})", "result 0 is no object");
    refuse(R"({"results": [{"task": "lm"}]})", "result 0 has no policy");
    refuse(R"({"results": [{"policy": "h2o", "accuracy": "good"}]})", "accuracy is \"good\"");
    refuse(R"({"results": [{"policy": "h2o", "task": 5}]})", "task is \"5\"");
    refuse(R"({"results": [{"policy": "h2o", "keep_ratio": 0.5, "accuracy": null}]})",
           "without a single figure");
    refuse(R"({"results": [], "kept_map": {"context": 2, "layers": [[[2]]]}})",
           "no token of 0 to 1");
    refuse(R"({"results": [], "kept_map": {"context": 0, "layers": []}})", "context is");
    expect_refusal(path("missing.json"), "cannot be read: No such file");
    expect_refusal(path(""), "cannot be read: Is a directory");
}

TEST_F(DrawnReportPage, LeavesAloneWhatIsNotAPage) {
    const std::string good =
        file("good.json", json{{"results", {with(row("h2o", 0.25), {{"accuracy", 0.5}})}}}.dump());
    expect_refusal(good + " --out " + good, "holds results");
    expect_refusal(good + " --out " + path("no/where.html"), "no such folder");
    expect_refusal(good + " --out /dev/null", "no ordinary file");
    EXPECT_FALSE(std::filesystem::is_regular_file("/dev/null"));
    expect_refusal(good + " " + path("missing.json") + " --out " + path("out.html"),
                   "missing.json");
}

TEST_F(ReportPage, SaysWhatIsMissing) {
    const std::string some =
        file("some.json", R"({"results": [{"policy": "h2o", "accuracy": 1}]})");
    expect_refusal("", "results is required");
    expect_refusal(some, "Debian: python3 python3-matplotlib", "KVCRUSH_PYTHON=/no/python3");
    expect_refusal(some, "report_page.py", "KVCRUSH_LAB_SOURCES='" + path("") + "'");
    if (run_in_shell("python3 --version").code == 0) { // -S: without the packages of the system
        const std::string bare = file("bare", "#!/bin/sh\nexec python3 -I -S \"$@\"\n");
        std::filesystem::permissions(bare, std::filesystem::perms::owner_all);
        expect_refusal(some, "Debian: python3 python3-matplotlib", "KVCRUSH_PYTHON='" + bare + "'");
    }
    EXPECT_EQ(report("--help").code, 0);
}

} // namespace
