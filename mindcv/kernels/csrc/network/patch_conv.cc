// The convolutions whose stride equals their kernel size: the stem and the downsampling. They are products over
// patches.
#include "gemm/arithmetic.h"
#include "gemm/gemm.h"
#include "network/layer_norm.h"
#include "runtime/operator.h"
#include "runtime/visible_cells.h"

namespace mindcv {
namespace MINDCV_ISA {
namespace {

// The layout of x: channels last, or channels first (the images that the stem takes).
enum Layout { kNHWC, kNCHW };

struct PatchShape {
  int64_t n, h, w, c;  // the input
  int64_t k, o;        // kernel size, output channels
  Layout layout;       // the layout of the input; the output is always [N, H / k, W / k, O]
  int64_t out_h() const { return h / k; }
  int64_t out_w() const { return w / k; }
  int64_t patches() const { return n * out_h() * out_w(); }
  int64_t patch() const { return k * k * c; }
  // A patch consists of lines() lines of line() contiguous values: its rows or, in NCHW, the rows of each channel.
  int64_t line() const { return layout == kNCHW ? k : k * c; }
  int64_t lines() const { return patch() / line(); }
};

PatchShape patch_shape(const Arguments& arguments, Layout layout) {
  return {arguments.size('N'),
          arguments.size('H'),
          arguments.size('W'),
          arguments.size('I'),
          arguments.size('k'),
          arguments.size('O'),
          layout};
}

// The offset in x of the line `line` of the patch `index`.
int64_t line_offset(const PatchShape& s, int64_t index, int64_t line) {
  const int64_t col = index % s.out_w() * s.k, patch_row = index / s.out_w();
  const int64_t image = patch_row / s.out_h(), row = patch_row % s.out_h() * s.k;
  if (s.layout == kNCHW) return ((image * s.c + line / s.k) * s.h + row + line % s.k) * s.w + col;
  return ((image * s.h + row + line) * s.w + col) * s.c;
}

// Copies the patches [first, first + count) to rows of k * k * c values.
void gather_patches(const PatchShape& s, const float* x, int64_t first, int64_t count, float* to) {
  const int64_t length = s.line();
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < s.lines(); ++j) {
      const float* from = x + line_offset(s, first + i, j);
      for (int64_t v = 0; v < length; ++v) *to++ = from[v];
    }
  }
}

// The weight [O, C, k, k] with its values in the order of a patch: unchanged for NCHW, else [O][k][k][C].
const float* patch_weight(Session& memory, const PatchShape& s, const float* weight) {
  if (s.layout == kNCHW) return weight;
  float* to = memory.floats(s.o * s.patch());
  parallel(s.o, [&](int64_t o) {
    for (int64_t i = 0; i < s.c; ++i) {
      for (int64_t t = 0; t < s.k * s.k; ++t) to[o * s.patch() + t * s.c + i] = weight[(o * s.c + i) * s.k * s.k + t];
    }
  });
  return to;
}

struct PatchParams {
  const float *weight, *bias;
  const float* packed;  // the weight as PackPatch or PackStem made it, or null
  // The parameters of a layer normalisation, or null. It is applied to the input or, in NCHW, to the output.
  const float *norm_gamma, *norm_beta;
};

// Packs the weight once, for many calls of the forward pass.
template <class G, Layout kLayout>
void pack_patch(const Arguments& arguments) {
  const PatchShape s{0, 0, 0, arguments.size('I'), arguments.size('k'), arguments.size('O'), kLayout};
  Session memory;
  typename G::B packed = G::b_in_memory(arguments.output("packed"), s.patch(), s.o);
  pack_matrix_b<G>({patch_weight(memory, s, arguments.input("weight")), s.patch(), s.o, true}, packed);
}

void normalise_in_place(float* row, int64_t c, const PatchParams& p) {
  normalise_row(row, c, row);
  scale_row(row, p.norm_gamma, p.norm_beta, c, row);
}

template <class G>
void convolve(Session& memory, const PatchShape& s, const PatchParams& p, const float* x, float* out) {
  const int64_t rows = s.patches(), length = s.patch();
  const MatrixB weight{p.packed == nullptr ? patch_weight(memory, s, p.weight) : nullptr, length, s.o, true};
  const OperandB<G> right{
      weight, p.packed == nullptr ? packed_matrix_b<G>(memory, weight) : G::packed_b(p.packed, length, s.o), true};
  const auto gather = [&](Rows part, Range, typename G::A& a, int64_t place) {
    const int64_t row = part.tile * kTile, count = min(kTile, rows - row);
    float* patches = static_cast<float*>(thread_scratch(static_cast<size_t>(kTile * length) * 4));
    for (int64_t i = part.begin; i < min(part.end, count); ++i) {
      gather_patches(s, x, row + i, 1, patches + i * length);
      if (p.norm_gamma == nullptr || s.layout == kNCHW) continue;
      for (int64_t j = 0; j < length; j += s.c) normalise_in_place(patches + i * length + j, s.c, p);
    }
    for (int64_t j = 0; j < length; j += kTile) {
      G::pack_a(a, place, j / kTile, patches + j, length, count, min(kTile, length - j), part.begin, part.end);
    }
  };
  const auto epilogue = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
    const int64_t col = col_tile * kTile, cols = min(kTile, s.o - col);
    for (int64_t i = 0; i < min(kTile, rows - row_tile * kTile); ++i) {
      float* to = out + (row_tile * kTile + i) * s.o + col;
      for (int64_t j = 0; j < cols; j += kWidth)
        store_part(to + j, load(tile + i * kTile + j) + load_part(p.bias + col + j, cols - j), cols - j);
    }
  };
  multiply_packing_a<G>(memory, rows, right, round_up(length, kTile), gather,
                        epilogue);  // gather copies whole patches, so A is not packed in parts
  if (p.norm_gamma == nullptr || s.layout == kNHWC) return;
  parallel(ceil_div(rows, kTile), [&](int64_t tile) {
    for (int64_t row = tile * kTile; row < min((tile + 1) * kTile, rows); ++row) {
      normalise_in_place(out + row * s.o, s.o, p);
    }
  });
}

template <class G, Layout kLayout>
void patch_forward(const Arguments& arguments) {
  const PatchParams params{arguments.input("weight"), arguments.input("bias"), nullptr, nullptr, nullptr};
  Session memory;
  convolve<G>(memory, patch_shape(arguments, kLayout), params, arguments.input("x"), arguments.output("out"));
}

// With a packed weight, and with the layer normalisation that comes before or after the convolution.
template <class G, Layout kLayout>
void patch_packed(const Arguments& arguments) {
  const PatchParams params{nullptr, arguments.input("bias"), arguments.input("weight"), arguments.input("norm.gamma"),
                           arguments.input("norm.beta")};
  Session memory;
  convolve<G>(memory, patch_shape(arguments, kLayout), params, arguments.input("x"), arguments.output("out"));
}

// The gradient with respect to x. It is 0 for rows and columns that fill no patch.
template <class G>
void backward_input(Session& memory, const PatchShape& s, const float* weight, const float* dout, float* dx) {
  const int64_t rows = s.patches(), length = s.patch();
  memset(dx, 0, static_cast<size_t>(s.n * s.h * s.w * s.c) * 4);
  const MatrixB source{patch_weight(memory, s, weight), s.o, length, false};
  const OperandB<G> right{source, packed_matrix_b<G>(memory, source), true};
  typename G::A left = G::allocate_a(memory, rows, s.o);
  parallel(ceil_div(rows, kTile), [&](int64_t tile) {
    const int64_t count = min(kTile, rows - tile * kTile);
    for (int64_t j = 0; j < s.o; j += kTile) {
      G::pack_a(left, tile, j / kTile, dout + tile * kTile * s.o + j, s.o, count, min(kTile, s.o - j));
    }
  });
  const auto epilogue = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
    for (int64_t i = 0; i < min(kTile, rows - row_tile * kTile); ++i) {
      const float* from = tile + i * kTile;
      const int64_t last = min(length, (col_tile + 1) * kTile);
      for (int64_t j = col_tile * kTile, count; j < last; j += count, from += count) {
        const int64_t line = j / s.line(), begin = j % s.line();
        count = min(s.line() - begin, last - j);
        memcpy(dx + line_offset(s, row_tile * kTile + i, line) + begin, from, static_cast<size_t>(count) * 4);
      }
    }
  };
  multiply<G>(left, right, rows, epilogue);
}

template <class G, Layout kLayout>
void patch_backward_input(const Arguments& arguments) {
  Session memory;
  backward_input<G>(memory, patch_shape(arguments, kLayout), arguments.input("weight"), arguments.input("dout"),
                    arguments.output("grad.x"));
}

template <class G>
void backward_params(Session& memory, const PatchShape& s, const float* x, const float* dout, float* dweight,
                     float* dbias) {
  const int64_t rows = s.patches(), length = s.patch();
  typename G::A left = G::allocate_a_transposed(memory, s.o, rows);
  typename G::B right = G::allocate_b(memory, rows, length);
  const int64_t tiles = ceil_div(rows, kTile), wide = round_up(s.o, kWidth);
  float* parts = memory.floats(tiles * wide);
  parallel(tiles, [&](int64_t tile) {
    const int64_t first = tile * kTile, count = min(kTile, rows - first);
    float* patches = static_cast<float*>(thread_scratch(static_cast<size_t>(kTile * length) * 4));
    gather_patches(s, x, first, count, patches);
    for (int64_t j = 0; j < length; j += kTile)
      G::pack_b(right, tile, j / kTile, patches + j, length, count, min(kTile, length - j), patches + j);
    for (int64_t j = 0; j < s.o; j += kTile) {
      G::pack_a_transposed(left, tile, j / kTile, dout + first * s.o + j, s.o, count, min(kTile, s.o - j));
    }
    for (int64_t j = 0; j < s.o; j += kWidth) {
      Vec total{};
      for (int64_t i = 0; i < count; ++i) total += load_part(dout + (first + i) * s.o + j, s.o - j);
      store(parts + tile * wide + j, total);
    }
  });
  for (int64_t j = 0; j < s.o; j += kWidth) {
    Vec total{};
    for (int64_t tile = 0; tile < tiles; ++tile) total += load(parts + tile * wide + j);
    store_part(dbias + j, total, s.o - j);
  }
  // The gradient is accumulated in the order of a patch, and copied to the order of the weight at the end.
  float* sums = s.layout == kNCHW ? dweight : memory.floats(s.o * length);
  const auto epilogue = [&](int64_t row_tile, int64_t col_tile, bool is_first, const float* tile) {
    const int64_t row = row_tile * kTile, col = col_tile * kTile;
    store_tile(tile, min(kTile, s.o - row), min(kTile, length - col), !is_first, sums + row * length + col, length);
  };
  multiply_long_k<G>(left, right, s.o, length, rows, epilogue);
  if (s.layout == kNCHW) return;
  parallel(s.o, [&](int64_t o) {
    for (int64_t t = 0; t < s.k * s.k; ++t) {
      for (int64_t i = 0; i < s.c; ++i) dweight[(o * s.c + i) * s.k * s.k + t] = sums[o * length + t * s.c + i];
    }
  });
}

template <class G, Layout kLayout>
void patch_backward_params(const Arguments& arguments) {
  Session memory;
  backward_params<G>(memory, patch_shape(arguments, kLayout), arguments.input("x"), arguments.input("dout"),
                     arguments.output("grad.weight"), arguments.output("grad.bias"));
}

// The downsampling of a compact map, whose visible patches are a batch of small images (see visible_cells.h).
PatchShape visible_patch_shape(const Arguments& arguments) {
  const int64_t count =
      count_visible(arguments.input("mask"), arguments.size('N'), arguments.size('S') * arguments.size('T'));
  const int64_t side = arguments.size('P');
  return {count, side, side, arguments.size('I'), arguments.size('k'), arguments.size('O'), kNHWC};
}

template <class G>
void visible_patch_forward(const Arguments& arguments) {
  const PatchParams params{arguments.input("weight"), arguments.input("bias"), nullptr, nullptr, nullptr};
  Session memory;
  convolve<G>(memory, visible_patch_shape(arguments), params, arguments.input("x"), arguments.output("out"));
}

template <class G>
void visible_patch_backward_input(const Arguments& arguments) {
  Session memory;
  backward_input<G>(memory, visible_patch_shape(arguments), arguments.input("weight"), arguments.input("dout"),
                    arguments.output("grad.x"));
}

template <class G>
void visible_patch_backward_params(const Arguments& arguments) {
  Session memory;
  backward_params<G>(memory, visible_patch_shape(arguments), arguments.input("x"), arguments.input("dout"),
                     arguments.output("grad.weight"), arguments.output("grad.bias"));
}

// The visible patches of images [N, I, H, W] as images of their own, [count, I, H / S, W / T].
class VisiblePatches {
 public:
  VisiblePatches(Session& memory, const Arguments& arguments)
      : mask_(arguments.input("mask")),
        n_(arguments.size('N')),
        grid_h_(arguments.size('S')),
        grid_w_(arguments.size('T')),
        c_(arguments.size('I')),
        image_h_(arguments.size('H')),
        image_w_(arguments.size('W')),
        h_(image_h_ / grid_h_),
        w_(image_w_ / grid_w_),
        count_(count_visible(mask_, n_, grid_h_ * grid_w_)) {
    patches_ = memory.floats(count_ * c_ * h_ * w_);
  }

  PatchShape shape(const Arguments& arguments) const {
    return {count_, h_, w_, c_, arguments.size('k'), arguments.size('O'), kNCHW};
  }
  float* patches() const { return patches_; }

  void gather(const float* x) const {
    for_each_line([&](int64_t at, float* line) { memcpy(line, x + at, static_cast<size_t>(w_) * 4); });
  }

  // Writes the patches to their places, and 0 to the others.
  void scatter(float* x) const {
    memset(x, 0, static_cast<size_t>(n_ * c_ * image_h_ * image_w_) * 4);
    for_each_line([&](int64_t at, const float* line) { memcpy(x + at, line, static_cast<size_t>(w_) * 4); });
  }

 private:
  // Calls body(place in x, line) for each line of each patch.
  template <class Body>
  void for_each_line(Body&& body) const {
    float* line = patches_;
    for (int64_t patch = 0; patch < n_ * grid_h_ * grid_w_; ++patch) {
      if (mask_[patch] != 0.0f) continue;
      const int64_t image = patch / (grid_h_ * grid_w_), row = patch / grid_w_ % grid_h_, col = patch % grid_w_;
      for (int64_t channel = 0; channel < c_; ++channel) {
        for (int64_t i = 0; i < h_; ++i, line += w_) {
          body(((image * c_ + channel) * image_h_ + row * h_ + i) * image_w_ + col * w_, line);
        }
      }
    }
  }

  const float* mask_;
  const int64_t n_, grid_h_, grid_w_, c_, image_h_, image_w_, h_, w_, count_;
  float* patches_;
};

template <class G>
void visible_stem_forward(const Arguments& arguments) {
  const PatchParams params{arguments.input("weight"), arguments.input("bias"), nullptr, nullptr, nullptr};
  Session memory;
  const VisiblePatches visible(memory, arguments);
  visible.gather(arguments.input("x"));
  convolve<G>(memory, visible.shape(arguments), params, visible.patches(), arguments.output("out"));
}

template <class G>
void visible_stem_backward_input(const Arguments& arguments) {
  Session memory;
  const VisiblePatches visible(memory, arguments);
  backward_input<G>(memory, visible.shape(arguments), arguments.input("weight"), arguments.input("dout"),
                    visible.patches());
  visible.scatter(arguments.output("grad.x"));
}

template <class G>
void visible_stem_backward_params(const Arguments& arguments) {
  Session memory;
  const VisiblePatches visible(memory, arguments);
  visible.gather(arguments.input("x"));
  backward_params<G>(memory, visible.shape(arguments), visible.patches(), arguments.input("dout"),
                     arguments.output("grad.weight"), arguments.output("grad.bias"));
}

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#define PATCH "x[N,H,W,I] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]"
#define STEM "x[N,I,H,W] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]"
#define PATCH_PACKED "x[N,H,W,I] weight[k,packed_patch(k,I,O)] bias[O] norm.gamma[I] norm.beta[I] -> out[N,H/k,W/k,O]"
#define STEM_PACKED "x[N,I,H,W] weight[k,packed_patch(k,I,O)] bias[O] norm.gamma[O] norm.beta[O] -> out[N,H/k,W/k,O]"
#define PACK_PATCH "weight[O,I,k,k] -> packed[k,packed_patch(k,I,O)]"
#define PATCH_INPUT_GRAD "x[N,H,W,I] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.x[N,H,W,I]"
#define STEM_INPUT_GRAD "x[N,I,H,W] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.x[N,I,H,W]"
#define PATCH_PARAMS_GRAD "x[N,H,W,I] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.weight[O,I,k,k] grad.bias[O]"
#define STEM_PARAMS_GRAD "x[N,I,H,W] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.weight[O,I,k,k] grad.bias[O]"

MINDCV_OPERATOR(Patch, PATCH, patch_forward<Float32, kNHWC>)
MINDCV_BF16_OPERATOR(PatchBf16, PATCH, patch_forward<Bfloat16, kNHWC>)
MINDCV_OPERATOR(Stem, STEM, patch_forward<Float32, kNCHW>)
MINDCV_BF16_OPERATOR(StemBf16, STEM, patch_forward<Bfloat16, kNCHW>)
MINDCV_OPERATOR(PatchPacked, PATCH_PACKED, patch_packed<Float32, kNHWC>, packed_floats<Float32>)
MINDCV_BF16_OPERATOR(PatchPackedBf16, PATCH_PACKED, patch_packed<Bfloat16, kNHWC>, packed_floats<Bfloat16>)
MINDCV_OPERATOR(StemPacked, STEM_PACKED, patch_packed<Float32, kNCHW>, packed_floats<Float32>)
MINDCV_BF16_OPERATOR(StemPackedBf16, STEM_PACKED, patch_packed<Bfloat16, kNCHW>, packed_floats<Bfloat16>)
MINDCV_OPERATOR(PackPatch, PACK_PATCH, pack_patch<Float32, kNHWC>, packed_floats<Float32>)
MINDCV_BF16_OPERATOR(PackPatchBf16, PACK_PATCH, pack_patch<Bfloat16, kNHWC>, packed_floats<Bfloat16>)
MINDCV_OPERATOR(PackStem, PACK_PATCH, pack_patch<Float32, kNCHW>, packed_floats<Float32>)
MINDCV_BF16_OPERATOR(PackStemBf16, PACK_PATCH, pack_patch<Bfloat16, kNCHW>, packed_floats<Bfloat16>)
MINDCV_OPERATOR(PatchInputGrad, PATCH_INPUT_GRAD, patch_backward_input<Float32, kNHWC>)
MINDCV_BF16_OPERATOR(PatchInputGradBf16, PATCH_INPUT_GRAD, patch_backward_input<Bfloat16, kNHWC>)
MINDCV_OPERATOR(StemInputGrad, STEM_INPUT_GRAD, patch_backward_input<Float32, kNCHW>)
MINDCV_BF16_OPERATOR(StemInputGradBf16, STEM_INPUT_GRAD, patch_backward_input<Bfloat16, kNCHW>)
MINDCV_OPERATOR(PatchParamsGrad, PATCH_PARAMS_GRAD, patch_backward_params<Float32, kNHWC>)
MINDCV_BF16_OPERATOR(PatchParamsGradBf16, PATCH_PARAMS_GRAD, patch_backward_params<Bfloat16, kNHWC>)
MINDCV_OPERATOR(StemParamsGrad, STEM_PARAMS_GRAD, patch_backward_params<Float32, kNCHW>)
MINDCV_BF16_OPERATOR(StemParamsGradBf16, STEM_PARAMS_GRAD, patch_backward_params<Bfloat16, kNCHW>)

#define VISIBLE_PATCH "x[N*S*T,P,P,I] mask[N,S,T] weight[O,I,k,k] bias[O] -> out[N*S*T,P/k,P/k,O]"
#define VISIBLE_STEM "x[N,I,H,W] mask[N,S,T] weight[O,I,k,k] bias[O] -> out[N*S*T,H/S/k,W/T/k,O]"
#define VISIBLE_PATCH_INPUT_GRAD \
  "x[N*S*T,P,P,I] mask[N,S,T] weight[O,I,k,k] dout[N*S*T,P/k,P/k,O] -> grad.x[N*S*T,P,P,I]"
#define VISIBLE_STEM_INPUT_GRAD "x[N,I,H,W] mask[N,S,T] weight[O,I,k,k] dout[N*S*T,H/S/k,W/T/k,O] -> grad.x[N,I,H,W]"
#define VISIBLE_PATCH_PARAMS_GRAD \
  "x[N*S*T,P,P,I] mask[N,S,T] weight[O,I,k,k] dout[N*S*T,P/k,P/k,O] -> grad.weight[O,I,k,k] grad.bias[O]"
#define VISIBLE_STEM_PARAMS_GRAD \
  "x[N,I,H,W] mask[N,S,T] weight[O,I,k,k] dout[N*S*T,H/S/k,W/T/k,O] -> grad.weight[O,I,k,k] grad.bias[O]"

MINDCV_OPERATOR(VisiblePatch, VISIBLE_PATCH, visible_patch_forward<Float32>)
MINDCV_BF16_OPERATOR(VisiblePatchBf16, VISIBLE_PATCH, visible_patch_forward<Bfloat16>)
MINDCV_OPERATOR(VisibleStem, VISIBLE_STEM, visible_stem_forward<Float32>)
MINDCV_BF16_OPERATOR(VisibleStemBf16, VISIBLE_STEM, visible_stem_forward<Bfloat16>)
MINDCV_OPERATOR(VisiblePatchInputGrad, VISIBLE_PATCH_INPUT_GRAD, visible_patch_backward_input<Float32>)
MINDCV_BF16_OPERATOR(VisiblePatchInputGradBf16, VISIBLE_PATCH_INPUT_GRAD, visible_patch_backward_input<Bfloat16>)
MINDCV_OPERATOR(VisibleStemInputGrad, VISIBLE_STEM_INPUT_GRAD, visible_stem_backward_input<Float32>)
MINDCV_BF16_OPERATOR(VisibleStemInputGradBf16, VISIBLE_STEM_INPUT_GRAD, visible_stem_backward_input<Bfloat16>)
MINDCV_OPERATOR(VisiblePatchParamsGrad, VISIBLE_PATCH_PARAMS_GRAD, visible_patch_backward_params<Float32>)
MINDCV_BF16_OPERATOR(VisiblePatchParamsGradBf16, VISIBLE_PATCH_PARAMS_GRAD, visible_patch_backward_params<Bfloat16>)
MINDCV_OPERATOR(VisibleStemParamsGrad, VISIBLE_STEM_PARAMS_GRAD, visible_stem_backward_params<Float32>)
MINDCV_BF16_OPERATOR(VisibleStemParamsGradBf16, VISIBLE_STEM_PARAMS_GRAD, visible_stem_backward_params<Bfloat16>)
