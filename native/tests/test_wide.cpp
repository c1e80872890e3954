// Contract 6 where it shows: at a level whose products of many rows are of bf16. A sequence that
// brings fewer than 32 rows to a pass gets, bit for bit, what it gets token by token; one that
// brings 32 or more gets the wide products, whoever its neighbours are; and prompts are cut in the
// same places wherever they enter. The level is reference_wide, so that no machine leaves this out.
#include <algorithm>
#include <string>
#include <vector>

#include "check.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;

struct Result {
    Floats logits;  // after the last token
    Floats state;
};

bool same(const Result& a, const Result& b) {
    return same_bits(a.logits, b.logits) && same_bits(a.state, b.state);
}

// Feeds the tokens, `piece` of them at a time.
Result fed(const Model& model, const Tokens& tokens, size_t piece) {
    const Session session = session_of(model);
    Result result{Floats(vocab_of(model)), {}};
    for (size_t at = 0; at < tokens.size(); at += piece) {
        const size_t n = std::min(piece, tokens.size() - at);
        EXPECT_OK(rwkv_session_feed(session.get(), tokens.data() + at, n, result.logits.data()));
    }
    result.state = state_of(model, session);
    return result;
}

// The same in one step with others.
Result in_company(const Model& model, const Tokens& tokens, const std::vector<size_t>& neighbours) {
    const Batch batch = batch_of(model);
    std::vector<Session> others;
    std::vector<Tokens> theirs;
    for (const size_t n : neighbours) {
        others.push_back(session_of(model));
        theirs.push_back(random_tokens(n, vocab_of(model), 100 + static_cast<uint32_t>(n)));
        EXPECT_OK(rwkv_batch_add(batch.get(), others.back().get(), theirs.back().data(), n,
                                 RWKV_LOGITS_NONE, nullptr));
    }
    const Session session = session_of(model);
    Result result{Floats(vocab_of(model)), {}};
    EXPECT_OK(rwkv_batch_add(batch.get(), session.get(), tokens.data(), tokens.size(),
                             RWKV_LOGITS_LAST, result.logits.data()));
    EXPECT_OK(rwkv_batch_run(batch.get()));
    result.state = state_of(model, session);
    return result;
}

void test_threshold(const Model& model) {
    const std::vector<size_t> company = {1, 40, 31, 32};
    for (const size_t n : {size_t{2}, size_t{31}}) {
        const Tokens tokens = random_tokens(n, vocab_of(model));
        const Result one_by_one = fed(model, tokens, 1);
        CHECK(same(fed(model, tokens, n), one_by_one));
        CHECK(same(in_company(model, tokens, company), one_by_one));
    }
    for (const size_t n : {size_t{32}, size_t{33}, size_t{64}}) {
        const Tokens tokens = random_tokens(n, vocab_of(model));
        const Result whole = fed(model, tokens, n);
        CHECK(!same(whole, fed(model, tokens, 1)));  // it did take the wide way
        CHECK(same(in_company(model, tokens, company), whole));
        CHECK(same(in_company(model, tokens, {}), whole));
    }
}

void test_cuts(const Model& model) {
    const size_t piece = rwkv_session_piece_size();
    CHECK(piece == 256);
    // The rows after the first piece: a few, the most that are narrow, the fewest that are wide.
    for (const size_t rest : {size_t{1}, size_t{31}, size_t{32}, size_t{300}}) {
        const Tokens tokens = random_tokens(piece + rest, vocab_of(model));
        const Result whole = fed(model, tokens, tokens.size());
        CHECK(same(fed(model, tokens, piece), whole));
        CHECK(same(in_company(model, tokens, {1, 300, 31}), whole));
        // Cut one earlier or later, the rest changes sides: or this test could see nothing.
        if (rest == 31) CHECK(!same(fed(model, tokens, piece - 1), whole));
        if (rest == 32) CHECK(!same(fed(model, tokens, piece + 1), whole));
    }
}

}  // namespace

int main() {
    choose_level("reference_wide");
    for (const char* version : {"4", "5.2", "6", "7"}) {
        tiny::Sizes sizes;
        sizes.n_layer = 1;
        sizes.n_head = 1;
        sizes.n_ffn = 32;
        sizes.n_vocab = 16;
        const tiny::File file(tiny::random_model(version, RWKV_TYPE_Q5_1, sizes));
        const Model model = open(file);
        CHECK(info_of(model.get()).kernels == std::string("reference_wide"));
        test_threshold(model);
        test_cuts(model);
    }
    // The level is used when it is asked for, and never otherwise.
    CHECK(unsetenv("RWKV_KERNELS") == 0);
    const Model best = open(tiny::random_model("7", RWKV_TYPE_Q4_0));
    CHECK(info_of(best.get()).kernels != std::string("reference_wide"));
    return 0;
}
