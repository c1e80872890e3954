// State files: what is saved goes on as if nothing had been, in every version and both types; a
// state of another model, and every kind of damage, is refused and changes nothing.
#include <unistd.h>
#if !defined(_WIN32)
#include <sys/stat.h>
#endif

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "hash64.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;
using Bytes = std::vector<uint8_t>;

constexpr size_t kHeaderBytes = 64;

Floats feed(const Session& session, const Model& model, const std::vector<int32_t>& tokens) {
    Floats logits(info_of(model.get()).n_vocab);
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), logits.data()));
    return logits;
}

std::string path_of(const char* name) {
    return std::string(RWKV_BINARY_DIR) + "/" + name + "-" + std::to_string(::getpid()) + ".state";
}

std::string in_folder(const std::string& name) { return std::string(RWKV_BINARY_DIR) + "/" + name; }

// How many temporary files lie in the folder of path_of().
size_t partial_files() {
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(RWKV_BINARY_DIR)) {
        n += entry.path().extension() == ".partial";
    }
    return n;
}

bool exists(const std::string& path) { return std::filesystem::exists(path); }

Bytes read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    CHECK(file.good());
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const std::string& path, const Bytes& bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    CHECK(file.good());
}

// Makes a changed file whole again, so that what is refused is the change.
void sign(Bytes& bytes) {
    const size_t n = bytes.size() - sizeof(uint64_t);
    rwkv::Hash64 hash;
    hash.add(bytes.data(), n);
    const uint64_t checksum = hash.value();
    std::memcpy(bytes.data() + n, &checksum, sizeof checksum);
}

void test_round_trip() {
    const std::string path = path_of("round-trip");
    for (const char* version : tiny::kVersions) {
        const Model model = open(tiny::random_model(version, RWKV_TYPE_Q4_0));
        const Session session = session_of(model);
        feed(session, model, {1, 2, 3, 4, 5});
        const Floats before = state_of(model, session);

        EXPECT_OK(rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP32));
        const size_t hidden_bytes = info_of(model.get()).n_embd * 4;
        CHECK(read_file(path).size() == kHeaderBytes + before.size() * 4 + hidden_bytes + 8);
        const Session other = session_of(model);
        EXPECT_OK(rwkv_state_load(other.get(), path.c_str()));
        CHECK(same_bits(state_of(model, other), before));
        const Floats expected = feed(session, model, {6, 7});
        CHECK(same_bits(feed(other, model, {6, 7}), expected));

        // Files of version 1 have no hidden state, and eight bytes less of header.
        EXPECT_OK(rwkv_state_write(session.get(), before.data(), before.size()));
        EXPECT_OK(rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP32));
        Bytes old = read_file(path);
        CHECK(old.size() == kHeaderBytes + before.size() * 4 + 8);
        old.erase(old.begin() + 56, old.begin() + 64);
        old[8] = 1;
        sign(old);
        write_file(path, old);
        EXPECT_OK(rwkv_state_load(other.get(), path.c_str()));
        CHECK(same_bits(state_of(model, other), before));

        // fp16 rounds each number once: half a unit in the last of 11 bits, or the smallest.
        EXPECT_OK(rwkv_state_write(session.get(), before.data(), before.size()));
        EXPECT_OK(rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP16));  // replaces
        CHECK(read_file(path).size() == kHeaderBytes + before.size() * 2 + 8);
        EXPECT_OK(rwkv_state_load(other.get(), path.c_str()));
        const Floats rounded = state_of(model, other);
        for (size_t i = 0; i < before.size(); ++i) {
            CHECK_NEAR(rounded[i], before[i], std::fabs(before[i]) / 2048 + 3e-8);
        }
    }
    ::unlink(path.c_str());
}

void test_fingerprint() {
    const auto fingerprint = [](const tiny::Model& made) {
        return info_of(open(made).get()).fingerprint;
    };
    const tiny::Model made = tiny::random_model("7", RWKV_TYPE_Q4_0);
    const uint64_t own = fingerprint(made);
    CHECK(fingerprint(made) == own);
    CHECK(fingerprint(tiny::random_model("7", RWKV_TYPE_Q4_0, {}, 2)) != own);
    CHECK(fingerprint(tiny::random_model("7", RWKV_TYPE_Q8_0)) != own);
    tiny::Sizes sizes;
    sizes.time_state = true;
    tiny::Model tuned = tiny::random_model("7", RWKV_TYPE_Q4_0, sizes);
    const uint64_t with_time_state = fingerprint(tuned);
    CHECK(with_time_state != own);
    tuned.at("blocks.1.att.time_state").data[100] ^= 1;
    CHECK(fingerprint(tuned) != with_time_state);
    for (size_t i = 0; i < made.tensors.size(); ++i) {
        // One bit of the last number of any tensor; larger tensors are sampled at their ends.
        tiny::Model changed = made;
        changed.tensors[i].data.back() ^= 1;
        CHECK(fingerprint(changed) != own);
    }
}

// `bytes` as a file must be refused with `status` and `word`, and leave the session as it was.
void expect_refused(const Session& session, const Model& model, const Bytes& bytes,
                    rwkv_status status, const char* word) {
    static const std::string path = path_of("refused");
    write_file(path, bytes);
    const Floats before = state_of(model, session);
    const rwkv_status got = rwkv_state_load(session.get(), path.c_str());
    const std::string message = rwkv_error_message();
    if (got != status || message.find(word) == std::string::npos || message.find(path) != 0) {
        std::fprintf(stderr, "status %d, expected %d with '%s': %s\n", got, status, word,
                     message.c_str());
        std::exit(1);
    }
    CHECK(same_bits(state_of(model, session), before));
    ::unlink(path.c_str());
}

void test_refused() {
    const tiny::Model made = tiny::random_model("6", RWKV_TYPE_FP32);
    const Model model = open(made);
    const Session session = session_of(model);
    feed(session, model, {1, 2, 3});
    const std::string path = path_of("good");
    EXPECT_OK(rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP32));
    const Bytes good = read_file(path);

    const auto changed = [&](const std::function<void(Bytes&)>& change, bool signed_again) {
        Bytes bytes = good;
        change(bytes);
        if (signed_again) sign(bytes);
        return bytes;
    };
    const auto refused = [&](const std::function<void(Bytes&)>& change, bool signed_again,
                             rwkv_status status, const char* word) {
        expect_refused(session, model, changed(change, signed_again), status, word);
    };
    refused([](Bytes& b) { b[0] = 'x'; }, true, RWKV_STATUS_STATE_FORMAT, "not a state file");
    refused([](Bytes& b) { b.clear(); }, false, RWKV_STATUS_STATE_FORMAT, "not a state file");
    refused([](Bytes& b) { b[8] = 3; }, true, RWKV_STATUS_STATE_VERSION, "expected 1 or 2, got 3");
    refused([](Bytes& b) { b[12] = 7; }, true, RWKV_STATUS_STATE_FORMAT, "got 7");
    refused([](Bytes& b) { b[16] ^= 1; }, true, RWKV_STATUS_STATE_MISMATCH, "another model");
    refused([](Bytes& b) { b[24] = '9'; }, true, RWKV_STATUS_STATE_MISMATCH, "RWKV-9");
    refused([](Bytes& b) { b[48] ^= 1; }, true, RWKV_STATUS_STATE_TRUNCATED, "truncated");
    refused([](Bytes& b) { b[55] = 0xff; }, true, RWKV_STATUS_STATE_FORMAT, "a possible one");
    refused([](Bytes& b) { b.push_back(0); }, false, RWKV_STATUS_STATE_FORMAT, "corrupt");
    refused([](Bytes& b) { b[kHeaderBytes + 9] ^= 1; }, false, RWKV_STATUS_STATE_FORMAT,
            "checksum");
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        refused([&](Bytes& b) { std::memcpy(b.data() + kHeaderBytes + 8, &bad, sizeof bad); }, true,
                RWKV_STATUS_STATE_VALUE, "number 2 of the state");
    }

    // Truncated anywhere; one bit flipped anywhere.
    std::mt19937 random(3);
    for (int i = 0; i < 300; ++i) {
        Bytes bytes = good;
        bytes.resize(8 + random() % (good.size() - 8));
        expect_refused(session, model, bytes, RWKV_STATUS_STATE_TRUNCATED, "truncated");
        bytes = good;
        bytes[random() % bytes.size()] ^= static_cast<uint8_t>(1 << random() % 8);
        write_file(path, bytes);
        CHECK(rwkv_state_load(session.get(), path.c_str()) != RWKV_STATUS_OK);
    }

    // Of another model of the same shape.
    EXPECT_OK(rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP32));
    const Model other = open(tiny::random_model("6", RWKV_TYPE_FP32, {}, 2));
    const Session stranger = session_of(other);
    CHECK(rwkv_state_load(stranger.get(), path.c_str()) == RWKV_STATUS_STATE_MISMATCH);
    CHECK(std::strstr(rwkv_error_message(), "Open the model file that wrote it") != nullptr);

    ::unlink(path.c_str());
    CHECK(rwkv_state_load(session.get(), path.c_str()) == RWKV_STATUS_FILE_UNREADABLE);
    CHECK(rwkv_state_load(session.get(), RWKV_BINARY_DIR) == RWKV_STATUS_FILE_UNREADABLE);
}

void test_save_refused() {
    const Model model = open(tiny::random_model("4", RWKV_TYPE_FP32));
    const Session session = session_of(model);
    const std::string path = path_of("save-refused");
    // pp of a fresh RWKV-4 is -1e30: more than fp16 holds.
    CHECK(rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP16) == RWKV_STATUS_STATE_VALUE);
    CHECK(std::strstr(rwkv_error_message(), "Try fp32") != nullptr);
    CHECK(!exists(path));
    EXPECT_OK(rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP32));
    const Bytes good = read_file(path);

    Floats state = state_of(model, session);
    state[1] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_OK(rwkv_state_write(session.get(), state.data(), state.size()));
    CHECK(rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP32) == RWKV_STATUS_STATE_VALUE);
    CHECK(read_file(path) == good);  // the older file stands
    ::unlink(path.c_str());

    rwkv_session_reset(session.get());
    const std::string nowhere = std::string(RWKV_BINARY_DIR) + "/no/such/folder.state";
    CHECK(rwkv_state_save(session.get(), nowhere.c_str(), RWKV_STATE_FP32) ==
          RWKV_STATUS_FILE_UNWRITABLE);
    // A folder cannot be replaced, and nothing temporary stays beside it.
    const std::string folder = path_of("folder");
    CHECK(std::filesystem::create_directory(folder));
    CHECK(rwkv_state_save(session.get(), folder.c_str(), RWKV_STATE_FP32) ==
          RWKV_STATUS_FILE_UNWRITABLE);
    CHECK(::rmdir(folder.c_str()) == 0);
#if defined(_WIN32)
    CHECK(rwkv_state_save(session.get(), "NUL", RWKV_STATE_FP32) == RWKV_STATUS_FILE_UNWRITABLE);
#else
    // Nor is a device, or a pipe: it would be gone for all. A link stays, and leads to the new file.
    const std::string pipe = path_of("pipe");
    CHECK(::mkfifo(pipe.c_str(), 0644) == 0);
    for (const char* device : {pipe.c_str(), "/dev/null"}) {
        CHECK(rwkv_state_save(session.get(), device, RWKV_STATE_FP32) ==
              RWKV_STATUS_FILE_UNWRITABLE);
        struct stat info = {};
        CHECK(::stat(device, &info) == 0 && !S_ISREG(info.st_mode));
    }
    CHECK(::unlink(pipe.c_str()) == 0);
    const std::string link = path_of("link");
    CHECK(::symlink(path.c_str(), link.c_str()) == 0);
    for (int i = 0; i < 2; ++i) {
        write_file(path, {1, 2, 3});
        EXPECT_OK(rwkv_state_save(session.get(), link.c_str(), RWKV_STATE_FP32));
        struct stat info = {};
        CHECK(::lstat(link.c_str(), &info) == 0 && S_ISLNK(info.st_mode));
        CHECK(read_file(path) == read_file(link) && read_file(path).size() > 3);
    }
    ::unlink(link.c_str());
    // A name as long as a file system takes: the temporary one is none the longer.
    const std::string longest = in_folder(std::string(255, 'n'));
    EXPECT_OK(rwkv_state_save(session.get(), longest.c_str(), RWKV_STATE_FP32));
    CHECK(::unlink(longest.c_str()) == 0);
#endif
    ::unlink(path.c_str());
    const std::string too_long = in_folder(std::string(256, 'n'));
    CHECK(rwkv_state_save(session.get(), too_long.c_str(), RWKV_STATE_FP32) ==
          RWKV_STATUS_FILE_UNWRITABLE);
    CHECK(std::strstr(rwkv_error_message(), "Try a shorter name") != nullptr);
    CHECK(partial_files() == 0);
    // In the current folder, and at the end of a path of more than one.
    for (const char* name : {"here.state", "./here.state"}) {
        EXPECT_OK(rwkv_state_save(session.get(), name, RWKV_STATE_FP32));
        CHECK(::unlink(name) == 0);
    }
    for (const char* name : {"", "/", "no/"}) {
        CHECK(rwkv_state_save(session.get(), name, RWKV_STATE_FP32) == RWKV_STATUS_FILE_UNWRITABLE);
    }
    CHECK(rwkv_state_save(nullptr, path.c_str(), RWKV_STATE_FP32) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_state_save(session.get(), nullptr, RWKV_STATE_FP32) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_state_load(nullptr, path.c_str()) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_state_load(session.get(), nullptr) == RWKV_STATUS_INVALID_ARGUMENT);
}

}  // namespace

int main() {
    test_round_trip();
    test_fingerprint();
    test_refused();
    test_save_refused();
    return 0;
}
