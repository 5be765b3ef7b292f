// How an operator reads its arguments, and how it is registered.
//
// An operator is one .cc file in network/. The build compiles the file once for each instruction set, in the namespace
// MINDCV_ISA, and a static object in each of these translation units registers the operator for its set. The file
// defines a function that takes `Arguments`, and registers it under the name that MindSpore calls:
//
//   MINDCV_OPERATOR(Norm, "x[...,C] gamma[C] beta[C] -> out[...,C] xhat[...,C] factor[...]", norm_forward)
//
// mindcv/kernels/signature_table.py must hold the same name and signature, and explains the signatures. The two tables
// are compared when the library is loaded.
#pragma once
#include <cstdint>

#include "runtime/registry.h"

namespace mindcv {

class CheckedCall;

// The arguments of one call, by their names in the operator's signature. The call has been checked against the
// signature, so sizes and addresses can be trusted. `repetition` counts from 0 inside `n*(...)`.
//
// A name that the signature does not hold is a mistake in the operator and throws std::logic_error, and so is an output
// that is read as an input.
class Arguments {
 public:
  explicit Arguments(const CheckedCall& call) : call_(call) {}

  const float* input(const char* name, int64_t repetition = 0) const;
  float* output(const char* name, int64_t repetition = 0) const;
  // An input that the operator changes in place.
  float* in_out(const char* name, int64_t repetition = 0) const;
  // Null where the signature has no such argument.
  const float* optional_input(const char* name, int64_t repetition = 0) const;
  float* optional_output(const char* name) const;

  // The number that a letter of the signature stands for. All of them are at least 1.
  int64_t size(char letter) const;
  // The product of the dimensions that `...` stands for.
  int64_t rest_size(int64_t repetition = 0) const;
  // How often `n*(...)` is repeated.
  int64_t repetitions() const;

 private:
  const CheckedCall& call_;
};

}  // namespace mindcv

// The C function that MindSpore's custom operators call. It throws a C++ exception where the call does not fit the
// signature: MindSpore puts the text of an exception into the error that the user sees. A status would reach the user
// as a number. Callers that cannot take an exception call the function through `mindcv_try`. See decision 0033.
#if defined(MINDCV_ONCE)
#define MINDCV_C_FUNCTION(name)                                                                                \
  extern "C" int name(int count, void** args, int* dims, int64_t** shapes, const char** types, void*, void*) { \
    static const mindcv::RegisteredOperator chosen(#name);                                                     \
    chosen.run({count, args, dims, shapes, types});                                                            \
    return 0;                                                                                                  \
  }
#else
#define MINDCV_C_FUNCTION(name)
#endif

// MINDCV_OPERATOR(name, signature, function) registers function(const Arguments&). A fourth argument is the function
// that gives the number of floats of a packed weight [n, k], for signatures with `packed` or `packed_patch`.
// MINDCV_BF16_OPERATOR does the same for an operator that multiplies bfloat16.
#define MINDCV_BF16_OPERATOR(name, ...)                          \
  namespace mindcv {                                             \
  namespace MINDCV_ISA {                                         \
  namespace {                                                    \
  const OperatorEntry name(#name, MINDCV_ISA_NAME, __VA_ARGS__); \
  }                                                              \
  }                                                              \
  }                                                              \
  MINDCV_C_FUNCTION(name)

// A set that only adds products of bfloat16 to another set has no other operators: they run on the other set, with its
// bits. See decision 0092.
#if defined(MINDCV_ONLY_BF16)
#define MINDCV_OPERATOR(...)
#else
#define MINDCV_OPERATOR(...) MINDCV_BF16_OPERATOR(__VA_ARGS__)
#endif
