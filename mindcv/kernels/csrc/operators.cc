// The functions that MindSpore's custom operators call, and the choice of the instruction set.
//
// Each has MindSpore's signature for functions of its own: the arrays of inputs and outputs in one list, with their
// shapes and types. A status other than 0 makes MindSpore raise an error.
#include <stdlib.h>
#include <string.h>

#include <exception>

#include "kernels.h"
#include "pool.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

using mindcv::Kernels;
using mindcv::kernels;

#if defined(__x86_64__) && defined(__linux__)
// Linux gives the tile registers' state to processes that ask for it.
bool may_use_tiles() {
  constexpr int kRequest = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

bool has_amx_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0 && (d >> 24 & 1) != 0;
}

bool has_avx512_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
}
#endif

// The best that the processor has, or the one named by MINDCV_KERNELS_ISA if the processor has it.
const Kernels* choose() {
  const Kernels* found[4];
  int count = 0;
#if defined(__x86_64__) && defined(__linux__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool amx = avx512 && has_amx_bf16() && has_avx512_bf16() && may_use_tiles();
#if defined(MINDCV_HAS_AMX)
  if (amx) found[count++] = &mindcv::kAmxKernels;
#endif
#if defined(MINDCV_HAS_AVX512)
  if (avx512) found[count++] = &mindcv::kAvx512Kernels;
#endif
#if defined(MINDCV_HAS_AVX2)
  if (avx2) found[count++] = &mindcv::kAvx2Kernels;
#endif
  (void)avx2, (void)amx;
#endif
  found[count++] = &mindcv::kGenericKernels;
  const char* wanted = getenv("MINDCV_KERNELS_ISA");
  for (int i = 0; wanted != nullptr && i < count; ++i) {
    if (strcmp(wanted, found[i]->name) == 0) return found[i];
  }
  return found[0];
}

template <class F>
int guarded(F&& run) {
  try {
    run();
    return 0;
  } catch (const std::exception&) {
    return 1;  // out of memory, the only one
  }
}

int64_t rows_of(int dims, const int64_t* shape) {
  int64_t rows = 1;
  for (int i = 0; i + 1 < dims; ++i) rows *= shape[i];
  return rows;
}

}  // namespace

const Kernels& mindcv::kernels() {
  static const Kernels* chosen = choose();
  return *chosen;
}

#define MINDCV_OPERATOR(name)                                                                               \
  extern "C" int name([[maybe_unused]] int count, [[maybe_unused]] void** args, [[maybe_unused]] int* dims, \
                      [[maybe_unused]] int64_t** shapes, const char**, void*, void*)

#define MINDCV_PATCH_OPERATORS(name, suffix, bf16, images)                                \
  MINDCV_OPERATOR(Pack##name##suffix) {                                                   \
    return guarded([&] { kernels().pack_patch(bf16, images, args, shapes); });            \
  }                                                                                       \
  MINDCV_OPERATOR(name##Packed##suffix) {                                                 \
    return guarded([&] { kernels().patch_packed(bf16, images, args, shapes); });          \
  }                                                                                       \
  MINDCV_OPERATOR(name##suffix) {                                                         \
    return guarded([&] { kernels().patch_forward(bf16, images, args, shapes); });         \
  }                                                                                       \
  MINDCV_OPERATOR(name##InputGrad##suffix) {                                              \
    return guarded([&] { kernels().patch_backward_input(bf16, images, args, shapes); });  \
  }                                                                                       \
  MINDCV_OPERATOR(name##ParamsGrad##suffix) {                                             \
    return guarded([&] { kernels().patch_backward_params(bf16, images, args, shapes); }); \
  }

// Each in two precisions.
#define MINDCV_OPERATORS(suffix, bf16)                                                  \
  MINDCV_OPERATOR(BlockV1##suffix) {                                                    \
    return guarded([&] { kernels().block_forward(bf16, false, false, args, shapes); }); \
  }                                                                                     \
  MINDCV_OPERATOR(BlockV2##suffix) {                                                    \
    return guarded([&] { kernels().block_forward(bf16, true, false, args, shapes); });  \
  }                                                                                     \
  MINDCV_OPERATOR(BlockV1Saving##suffix) {                                              \
    return guarded([&] { kernels().block_forward(bf16, false, true, args, shapes); });  \
  }                                                                                     \
  MINDCV_OPERATOR(BlockV2Saving##suffix) {                                              \
    return guarded([&] { kernels().block_forward(bf16, true, true, args, shapes); });   \
  }                                                                                     \
  MINDCV_OPERATOR(BlockV1Grad##suffix) {                                                \
    return guarded([&] { kernels().block_backward(bf16, false, args, shapes); });       \
  }                                                                                     \
  MINDCV_OPERATOR(BlockV2Grad##suffix) {                                                \
    return guarded([&] { kernels().block_backward(bf16, true, args, shapes); });        \
  }                                                                                     \
  MINDCV_OPERATOR(StageV1Packed##suffix) {                                              \
    return guarded([&] { kernels().stage_packed(bf16, false, count, args, shapes); });  \
  }                                                                                     \
  MINDCV_OPERATOR(StageV2Packed##suffix) {                                              \
    return guarded([&] { kernels().stage_packed(bf16, true, count, args, shapes); });   \
  }                                                                                     \
  MINDCV_OPERATOR(PackWeight##suffix) {                                                 \
    return guarded([&] { kernels().pack_weight(bf16, args, shapes); });                 \
  }                                                                                     \
  MINDCV_PATCH_OPERATORS(Patch, suffix, bf16, false)                                    \
  MINDCV_PATCH_OPERATORS(Stem, suffix, bf16, true)
MINDCV_OPERATORS(, false)
MINDCV_OPERATORS(Bf16, true)

MINDCV_OPERATOR(Norm) {
  return guarded([&] { kernels().norm_forward(args, rows_of(dims[0], shapes[0]), shapes[0][dims[0] - 1]); });
}
MINDCV_OPERATOR(NormGrad) {
  return guarded([&] { kernels().norm_backward(args, rows_of(dims[0], shapes[0]), shapes[0][dims[0] - 1]); });
}
MINDCV_OPERATOR(AdamW) {
  return guarded([&] { kernels().adamw(count, args, dims, shapes); });
}

extern "C" const char* mindcv_kernels_isa() { return kernels().name; }
extern "C" int64_t mindcv_packed_floats(int bf16, int64_t k, int64_t n) {
  return kernels().packed_floats(bf16 != 0, k, n);
}
extern "C" int mindcv_kernels_threads(int wanted) {
  mindcv::set_pool_threads(wanted);
  return mindcv::pool_threads();
}
