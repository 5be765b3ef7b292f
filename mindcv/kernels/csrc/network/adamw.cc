// A step of AdamW on many tensors in one pass over their memory (decision 0058).
#include "runtime/operator.h"
#include "runtime/parallel.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {
namespace {

// The same for all tensors: the decay rates of the moments, and two numbers of the bias correction (see
// mindcv/optim/adamw.py): eps times the root, and the quotient.
struct AdamWConstants {
  float beta1, beta2, eps, correction;
};

struct AdamWTensor {
  float *weight, *moment1, *moment2;
  const float* gradient;
  float rate, decay;
  int64_t count;
};

// Updates `count` values of a tensor from `first` on.
void adamw_part(const AdamWConstants& k, const AdamWTensor& t, int64_t first, int64_t count) {
  float *w = t.weight + first, *m = t.moment1 + first, *v = t.moment2 + first;
  const float* gradient = t.gradient + first;
  const float new1 = 1.0f - k.beta1, new2 = 1.0f - k.beta2;
  for (int64_t i = 0; i < count; i += kWidth) {
    const int64_t left = count - i;
    const Vec g = load_part(gradient + i, left), weight = load_part(w + i, left);
    const Vec moment1 = k.beta1 * load_part(m + i, left) + new1 * g;
    const Vec moment2 = k.beta2 * load_part(v + i, left) + new2 * g * g;
    const Vec change = k.correction * moment1 / (sqrt(moment2) + k.eps) + t.decay * weight;
    store_part(m + i, moment1, left);
    store_part(v + i, moment2, left);
    store_part(w + i, weight - t.rate * change, left);
  }
}

// Splits the tensors into pieces of equal size, which the threads take.
void adamw(const Arguments& arguments) {
  constexpr int64_t kPiece = 1 << 14;
  const int64_t count = arguments.repetitions();
  const float *rates = arguments.input("rates"), *decays = arguments.input("decays");
  const float* values = arguments.input("constants");
  const AdamWConstants constants{values[0], values[1], values[2], values[3]};
  Session memory;
  auto* tensors = static_cast<AdamWTensor*>(memory.bytes(static_cast<size_t>(count) * sizeof(AdamWTensor)));
  // The number of the first piece of each tensor, and at the end the number of all pieces.
  auto* starts = static_cast<int64_t*>(memory.bytes(static_cast<size_t>(count + 1) * sizeof(int64_t)));
  starts[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    tensors[i] = {arguments.in_out("weight", i),
                  arguments.in_out("moment1", i),
                  arguments.in_out("moment2", i),
                  arguments.input("gradient", i),
                  rates[i],
                  decays[i],
                  arguments.rest_size(i)};
    starts[i + 1] = starts[i] + ceil_div(tensors[i].count, kPiece);
  }
  parallel(starts[count], [&](int64_t piece) {
    int64_t low = 0, high = count;  // the last tensor that starts at or before the piece
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (starts[middle] <= piece ? low : high) = middle;
    }
    const int64_t first = (piece - starts[low]) * kPiece;
    adamw_part(constants, tensors[low], first, min(kPiece, tensors[low].count - first));
  });
  arguments.output("unused")[0] = 0.0f;
}

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

MINDCV_OPERATOR(AdamW,
                "n*(weight[...]) n*(moment1[...]) n*(moment2[...]) n*(gradient[...]) rates[n] decays[n] constants[4] "
                "-> unused[1]",
                adamw)
