// Checks a call of an operator against the operator's signature, a text such as
//
//   x[N,H,W,I] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]
//
// mindcv/kernels/signature_table.py explains these texts and holds the same ones; mindcv/kernels/signatures.py checks
// the same in Python. See decision 0033.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/registry.h"

namespace mindcv {

class Signature {
 public:
  explicit Signature(const OperatorEntry& entry);

  struct Argument {
    std::string name;
    std::string text;  // [N, H/k, ...]
    bool has_rest;     // `...` comes before the dimensions
    bool is_output;
    std::vector<std::string> dims;
  };

  // One argument, or the arguments that are repeated together.
  struct Part {
    bool is_repeated;
    std::vector<Argument> arguments;
  };

  const char* name() const { return entry_.name; }
  int64_t packed_floats(int64_t k, int64_t n) const { return entry_.packed_floats(k, n); }
  const std::vector<Part>& parts() const { return parts_; }

 private:
  const OperatorEntry& entry_;
  std::vector<Part> parts_;
};

// The arguments of a call, which fit the signature. The constructor throws std::invalid_argument with one sentence that
// names the operator, the argument, what was found and what is expected.
class CheckedCall {
 public:
  CheckedCall(const Signature& signature, const Call& call);

  // An argument of the signature, and the place of its first repetition in the call.
  struct Place {
    const Signature::Argument* argument;  // null where the signature has no such name
    int64_t first, step, repetitions;
  };
  Place find(const char* name) const;
  void* values(const Place& place, int64_t repetition) const;

  int64_t size(char letter) const;
  int64_t rest_size(int64_t repetition) const;
  int64_t repetitions() const { return times_; }
  const char* name() const { return signature_.name(); }

 private:
  // An argument of the call; `repetition` counts from 1 and is 0 for an argument that is not repeated.
  struct Given {
    const Signature::Argument* argument;
    int64_t repetition;
    int dims;
    const int64_t* shape;
  };

  // What `...` stands for.
  struct Rest {
    const int64_t* shape = nullptr;
    int dims = -1;
  };

  void name_arguments();
  void check_memory(size_t i) const;
  void bind_sizes(const Given& given);
  void compare_sizes(const Given& given) const;
  int64_t product(const char** at) const;
  int64_t factor(const char** at) const;
  int64_t packed_floats(int64_t k, int64_t n) const;
  std::string sizes_in(const std::string& dim) const;
  std::string name_of(const Given& given) const;
  [[noreturn]] void fail(const Given& given, const std::string& expected) const;

  const Signature& signature_;
  const Call& call_;
  int64_t times_ = 0;  // how often n*(...) is repeated
  std::vector<Given> given_;
  int64_t sizes_[128] = {};  // of the letters
  std::vector<Rest> rests_;  // of each repetition
};

}  // namespace mindcv
