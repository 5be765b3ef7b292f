// The functions that MindSpore's custom operators call.
//
// Each has MindSpore's signature for functions of its own: the arrays of inputs and outputs in one list, with their
// shapes and types. A status other than 0 makes MindSpore raise an error.
#include <exception>

#include "kernels.h"
#include "pool.h"

namespace {

using mindcv::kernels;

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

extern "C" int64_t mindcv_packed_floats(int bf16, int64_t k, int64_t n) {
  return kernels().packed_floats(bf16 != 0, k, n);
}
extern "C" int mindcv_kernels_threads(int wanted) {
  mindcv::set_pool_threads(wanted);
  return mindcv::pool_threads();
}
