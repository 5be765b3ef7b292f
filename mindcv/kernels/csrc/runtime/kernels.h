// The kernels as tables of functions, one table for each instruction set.
#pragma once
#include <cstdint>

#include "image/images.h"

namespace mindcv {

struct Kernels {
  const char* name;
  // Arguments in the order of network/kernels.cc; shapes is what MindSpore gives with them. `bf16`: products of numbers
  // rounded to bfloat16. A packed weight takes packed_floats(bf16, k, n) floats.
  int64_t (*packed_floats)(bool bf16, int64_t k, int64_t n);
  void (*pack_weight)(bool bf16, void** args, int64_t** shapes);
  // `count` arguments in all.
  void (*stage_packed)(bool bf16, bool is_v2, int count, void** args, int64_t** shapes);
  void (*block_forward)(bool bf16, bool is_v2, bool saves, void** args, int64_t** shapes);
  void (*block_backward)(bool bf16, bool is_v2, void** args, int64_t** shapes);
  // `images`: x has its channels first.
  void (*pack_patch)(bool bf16, bool images, void** args, int64_t** shapes);
  void (*patch_packed)(bool bf16, bool images, void** args, int64_t** shapes);
  void (*patch_forward)(bool bf16, bool images, void** args, int64_t** shapes);
  void (*patch_backward_input)(bool bf16, bool images, void** args, int64_t** shapes);
  void (*patch_backward_params)(bool bf16, bool images, void** args, int64_t** shapes);
  void (*norm_forward)(void** args, int64_t rows, int64_t channels);
  void (*norm_backward)(void** args, int64_t rows, int64_t channels);
  // `count` arguments in all, with `dims` axes each.
  void (*adamw)(int count, void** args, const int* dims, int64_t** shapes);
  const ImageKernels* images;
};

// Those that the compiler knows; dispatch.cc is told which.
extern const Kernels kGenericKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAmxKernels;

// The set in use.
const Kernels& kernels();

}  // namespace mindcv
