// Compiled once for each instruction set, with MINDCV_ISA set by the build, and without fused multiply-add: what is
// computed in floating point here is to have the bits of Pillow and NumPy.
#include "image/affine.h"
#include "image/enhance.h"
#include "image/lookup.h"
#include "image/planes.h"
#include "image/resize.h"

namespace mindcv {
namespace MINDCV_ISA {

extern const ImageKernels kImageKernels = {resize_horizontal, resize_vertical, to_planes, mix,
                                           look_up,           sharpen,         saturate,  affine};

}  // namespace MINDCV_ISA
}  // namespace mindcv
