// Compiled once for each instruction set, with MINDCV_ISA (a namespace) and MINDCV_TABLE set by the build.
#include "runtime/kernels.h"

#if defined(__AMX_BF16__)
#include "gemm/amx.h"
#else
#include "gemm/fma.h"
#endif
#include "network/adamw.h"
#include "network/block_backward.h"
#include "network/block_forward.h"
#include "network/patch_conv.h"

namespace mindcv {
namespace MINDCV_ISA {

extern const ImageKernels kImageKernels;  // in image/image_kernels.cc

namespace {

#if defined(__AMX_BF16__)
using Float32 = Amx<3>;
using Bfloat16 = Amx<1>;
#else
using Float32 = Fma<false>;
using Bfloat16 = Fma<true>;
#endif

const float* in(void** args, int i) { return static_cast<const float*>(args[i]); }
float* out(void** args, int i) { return static_cast<float*>(args[i]); }

MapShape map_shape(const int64_t* shape) { return {shape[0], shape[1], shape[2], shape[3]}; }

// Arguments of both passes begin with: x, dwconv weight and bias, norm gamma and beta, pwconv1 weight and bias, (V2:
// grn gamma and beta,) pwconv2 weight and bias, (V1: scale,) keep.
constexpr int kV1Params = 11, kV2Params = 12;

BlockParams block_params(bool is_v2, void** a) {
  BlockParams p{};
  p.dw_weight = in(a, 1);
  p.dw_bias = in(a, 2);
  p.norm_gamma = in(a, 3);
  p.norm_beta = in(a, 4);
  p.weight1 = in(a, 5);
  p.bias1 = in(a, 6);
  p.grn_gamma = is_v2 ? in(a, 7) : nullptr;
  p.grn_beta = is_v2 ? in(a, 8) : nullptr;
  p.weight2 = in(a, is_v2 ? 9 : 7);
  p.bias2 = in(a, is_v2 ? 10 : 8);
  p.scale = is_v2 ? nullptr : in(a, 9);
  p.keep = in(a, is_v2 ? 11 : 10);
  return p;
}

int64_t run_packed_floats(bool bf16, int64_t k, int64_t n) {
  return static_cast<int64_t>((bf16 ? Bfloat16::b_bytes(k, n) : Float32::b_bytes(k, n)) / 4);
}

// w [n, k]; the packed weight.
void run_pack_weight(bool bf16, void** a, int64_t** shapes) {
  (bf16 ? pack_weight<Bfloat16> : pack_weight<Float32>)(in(a, 0), shapes[0][0], shapes[0][1], a[1]);
}

// Blocks one after the other, without keep: x; of each block the parameters, where packed weights stand for those of
// pwconv1 and pwconv2; out.
void run_stage_packed(bool bf16, bool is_v2, int count, void** a, int64_t** shapes) {
  const int params = (is_v2 ? kV2Params : kV1Params) - 2;
  const MapShape shape = map_shape(shapes[0]);
  float* y = out(a, count - 1);
  const float* x = in(a, 0);
  for (int first = 0; first + 2 < count; first += params, x = y) {
    BlockParams p = block_params(is_v2, a + first);
    p.packed1 = a[first + 5];
    p.packed2 = a[first + (is_v2 ? 9 : 7)];
    p.weight1 = p.weight2 = p.keep = nullptr;
    if (bf16) {
      BlockForward<Bfloat16>(shape, p, {}, x, y).run();
    } else {
      BlockForward<Float32>(shape, p, {}, x, y).run();
    }
  }
}

// Then the forward pass gives out and, when it saves: xhat, factor, z, (V2: norms).
void run_block_forward(bool bf16, bool is_v2, bool saves, void** a, int64_t** shapes) {
  const int first = is_v2 ? kV2Params : kV1Params;
  BlockSaved saved{};
  if (saves) saved = {out(a, first + 1), out(a, first + 2), out(a, first + 3), is_v2 ? out(a, first + 4) : nullptr};
  const MapShape shape = map_shape(shapes[0]);
  const BlockParams params = block_params(is_v2, a);
  if (bf16) {
    BlockForward<Bfloat16>(shape, params, saved, in(a, 0), out(a, first)).run();
  } else {
    BlockForward<Float32>(shape, params, saved, in(a, 0), out(a, first)).run();
  }
}

// The backward pass takes dout and what was saved, and gives the gradients of x and of the parameters in their order.
void run_block_backward(bool bf16, bool is_v2, void** a, int64_t** shapes) {
  const int first = is_v2 ? kV2Params : kV1Params;
  const BlockSaved saved = {out(a, first + 1), out(a, first + 2), out(a, first + 3),
                            is_v2 ? out(a, first + 4) : nullptr};
  const int d = first + (is_v2 ? 5 : 4);
  BlockGrads g{};
  g.dx = out(a, d);
  g.dw_weight = out(a, d + 1);
  g.dw_bias = out(a, d + 2);
  g.norm_gamma = out(a, d + 3);
  g.norm_beta = out(a, d + 4);
  g.weight1 = out(a, d + 5);
  g.bias1 = out(a, d + 6);
  g.grn_gamma = is_v2 ? out(a, d + 7) : nullptr;
  g.grn_beta = is_v2 ? out(a, d + 8) : nullptr;
  g.weight2 = out(a, d + (is_v2 ? 9 : 7));
  g.bias2 = out(a, d + (is_v2 ? 10 : 8));
  g.scale = is_v2 ? nullptr : out(a, d + 9);
  const MapShape shape = map_shape(shapes[0]);
  const BlockParams params = block_params(is_v2, a);
  if (bf16) {
    BlockBackward<Bfloat16>(shape, params, saved, in(a, 0), in(a, first), g).run();
  } else {
    BlockBackward<Float32>(shape, params, saved, in(a, 0), in(a, first), g).run();
  }
}

PatchShape patch_shape(bool images, const int64_t* x, const int64_t* weight) {
  if (images) return {x[0], x[2], x[3], x[1], weight[2], weight[0], true};
  return {x[0], x[1], x[2], x[3], weight[2], weight[0], false};
}

void run_patch_forward(bool bf16, bool images, void** a, int64_t** shapes) {
  const PatchShape shape = patch_shape(images, shapes[0], shapes[1]);
  const PatchParams params{in(a, 1), in(a, 2), nullptr, nullptr, nullptr};
  (bf16 ? patch_forward<Bfloat16> : patch_forward<Float32>)(shape, params, in(a, 0), out(a, 3));
}

// weight [O, C, k, k]; the packed weight, [k, any].
void run_pack_patch(bool bf16, bool images, void** a, int64_t** shapes) {
  const int64_t* w = shapes[0];
  const PatchShape shape{0, 0, 0, w[1], w[2], w[0], images};
  (bf16 ? pack_patch<Bfloat16> : pack_patch<Float32>)(shape, in(a, 0), a[1]);
}

// x, packed weight, bias, gamma and beta of the norm before (or, with images, after); out.
void run_patch_packed(bool bf16, bool images, void** a, int64_t** shapes) {
  const int64_t weight[] = {shapes[2][0], 0, shapes[1][0]};
  const PatchShape shape = patch_shape(images, shapes[0], weight);
  const PatchParams params{nullptr, in(a, 2), a[1], in(a, 3), in(a, 4)};
  (bf16 ? patch_forward<Bfloat16> : patch_forward<Float32>)(shape, params, in(a, 0), out(a, 5));
}

// x (for its shape), weight, dout; dx.
void run_patch_backward_input(bool bf16, bool images, void** a, int64_t** shapes) {
  (bf16 ? patch_backward_input<Bfloat16> : patch_backward_input<Float32>)(patch_shape(images, shapes[0], shapes[1]),
                                                                          in(a, 1), in(a, 2), out(a, 3));
}

// x, weight (for its shape), dout; dweight, dbias.
void run_patch_backward_params(bool bf16, bool images, void** a, int64_t** shapes) {
  (bf16 ? patch_backward_params<Bfloat16> : patch_backward_params<Float32>)(patch_shape(images, shapes[0], shapes[1]),
                                                                            in(a, 0), in(a, 2), out(a, 3), out(a, 4));
}

// x, gamma, beta; y, xhat, factor.
void run_norm_forward(void** a, int64_t rows, int64_t c) {
  norm_forward(rows, c, in(a, 0), in(a, 1), in(a, 2), out(a, 3), out(a, 4), out(a, 5));
}

// xhat, factor, gamma, dy; dx, dgamma, dbeta.
void run_norm_backward(void** a, int64_t rows, int64_t c) {
  norm_backward(rows, c, in(a, 0), in(a, 1), in(a, 2), in(a, 3), out(a, 4), out(a, 5), out(a, 6));
}

// Of n tensors: weights [n], first moments [n], second moments [n], which all change; gradients [n]; then the rates
// [n], the decays [n] and the constants [4], each in one array. What goes out has no meaning.
void run_adamw(int count, void** a, const int* dims, int64_t** shapes) {
  const int n = (count - 4) / 4;
  const float *rates = in(a, 4 * n), *decays = in(a, 4 * n + 1), *k = in(a, 4 * n + 2);
  Session memory;
  auto* tensors = static_cast<AdamWTensor*>(memory.bytes(static_cast<size_t>(n) * sizeof(AdamWTensor)));
  for (int i = 0; i < n; ++i) {
    int64_t size = 1;
    for (int axis = 0; axis < dims[i]; ++axis) size *= shapes[i][axis];
    tensors[i] = {out(a, i), out(a, n + i), out(a, 2 * n + i), in(a, 3 * n + i), rates[i], decays[i], size};
  }
  adamw(memory, {k[0], k[1], k[2], k[3]}, tensors, n);
  *out(a, count - 1) = 0.0f;
}

}  // namespace
}  // namespace MINDCV_ISA

#define MINDCV_TEXT_OF(x) #x
#define MINDCV_TEXT(x) MINDCV_TEXT_OF(x)

const Kernels MINDCV_TABLE = {
    MINDCV_TEXT(MINDCV_ISA),
    MINDCV_ISA::run_packed_floats,
    MINDCV_ISA::run_pack_weight,
    MINDCV_ISA::run_stage_packed,
    MINDCV_ISA::run_block_forward,
    MINDCV_ISA::run_block_backward,
    MINDCV_ISA::run_pack_patch,
    MINDCV_ISA::run_patch_packed,
    MINDCV_ISA::run_patch_forward,
    MINDCV_ISA::run_patch_backward_input,
    MINDCV_ISA::run_patch_backward_params,
    MINDCV_ISA::run_norm_forward,
    MINDCV_ISA::run_norm_backward,
    MINDCV_ISA::run_adamw,
    &MINDCV_ISA::kImageKernels,
};

}  // namespace mindcv
