// The operators and image kernels of all instruction sets that the library was built for.
//
// Static objects in the operators' files fill the registry when the library is loaded. The functions here are declared
// without the standard library, because code that is compiled for an instruction set includes this file (see simd.h).
#pragma once
#include <cstdint>

#define MINDCV_TEXT_OF(x) #x
#define MINDCV_TEXT(x) MINDCV_TEXT_OF(x)
#define MINDCV_ISA_NAME MINDCV_TEXT(MINDCV_ISA)

namespace mindcv {

class Arguments;
class Signature;

// What MindSpore calls an operator with: the arrays of inputs and outputs in one list, with their shapes and types.
struct Call {
  int count;
  void* const* args;
  const int* dims;
  const int64_t* const* shapes;
  const char* const* types;
};

// An operator on one instruction set.
class OperatorEntry {
 public:
  using Function = void (*)(const Arguments&);
  using PackedFloats = int64_t (*)(int64_t k, int64_t n);

  OperatorEntry(const char* name, const char* isa, const char* signature, Function function,
                PackedFloats packed_floats = nullptr);

  const char* const name;
  const char* const isa;
  const char* const signature;
  const Function function;
  const PackedFloats packed_floats;
  const OperatorEntry* const next;  // in the list of all entries
};

// A kernel for images on one instruction set. The kernels have different types; the file of a kernel names its type
// where it registers the kernel and where it looks the kernel up.
class ImageKernelEntry {
 public:
  using Function = void (*)();

  // Inlined always: the linker must not choose between copies that were compiled for different instruction sets.
  template <class F>
  __attribute__((always_inline)) ImageKernelEntry(const char* name, const char* isa, F function)
      : ImageKernelEntry(name, isa, reinterpret_cast<Function>(function), nullptr) {}

  const char* const name;
  const char* const isa;
  const Function function;
  const ImageKernelEntry* const next;

 private:
  ImageKernelEntry(const char* name, const char* isa, Function function, void*);
};

// The operator `name` on the best instruction set in use. The constructor throws std::logic_error where there is none.
class RegisteredOperator {
 public:
  explicit RegisteredOperator(const char* name);

  // Checks the call against the signature, and runs the operator. Throws std::invalid_argument.
  void run(const Call& call) const;

  int64_t packed_floats(int64_t k, int64_t n) const { return entry_.packed_floats(k, n); }

 private:
  const OperatorEntry& entry_;
  const Signature& signature_;
};

// The image kernel `name` on the best instruction set in use.
ImageKernelEntry::Function find_image_kernel(const char* name);

template <class F>
F image_kernel(const char* name) {
  return reinterpret_cast<F>(find_image_kernel(name));
}

// Whether the library was built for the instruction set.
bool is_built(const char* isa);

}  // namespace mindcv
