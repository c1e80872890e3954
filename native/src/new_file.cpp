#include "new_file.h"

#include "status.h"

namespace rwkv {

namespace {

const char* sentence(os::Error::Remedy remedy) {
    switch (remedy) {
        case os::Error::Remedy::none:
            return "";
        case os::Error::Remedy::another_name:
            return ". Try another name";
        case os::Error::Remedy::shorter_name:
            return ". Try a shorter name";
        case os::Error::Remedy::another_folder:
            return ". Try another folder";
        case os::Error::Remedy::room:
            return ". Make room, or try another disk";
        case os::Error::Remedy::close_it:
            return ". Try again when nothing else has it open, or another name";
    }
    return "";
}

[[noreturn]] void fail(const std::string& path, const os::Error& error) {
    throw Failure(RWKV_STATUS_FILE_UNWRITABLE, format("%s: cannot be written: %s%s", path.c_str(),
                                                      error.what(), sentence(error.remedy())));
}

}  // namespace

NewFile::NewFile(const std::string& path) : path_(path) {
    try {
        file_ = std::make_unique<os::UnfinishedFile>(path);
    } catch (const os::Error& error) {
        fail(path_, error);
    }
}

void NewFile::write(const void* bytes, size_t n) {
    try {
        file_->write(bytes, n);
    } catch (const os::Error& error) {
        fail(path_, error);
    }
}

void NewFile::finish() {
    try {
        file_->finish();
    } catch (const os::Error& error) {
        fail(path_, error);
    }
}

}  // namespace rwkv
