// A compact map of visible patches as a map of all cells, and back (see visible_cells.h).
#include "runtime/operator.h"
#include "runtime/parallel.h"
#include "runtime/visible_cells.h"

namespace mindcv {
namespace MINDCV_ISA {
namespace {

// Calls body(row of the map of all cells, row of the compact map or -1) for each cell.
template <class Body>
void for_each_cell(const Arguments& arguments, Body&& body) {
  Session memory;
  const VisibleCells cells(memory, arguments.input("mask"), arguments.size('N'), arguments.size('S'),
                           arguments.size('T'), arguments.size('P'));
  parallel(cells.images() * cells.h(), [&](int64_t line) {
    const int32_t* rows = cells.line(line / cells.h(), line % cells.h());
    for (int64_t col = 0; col < cells.w(); ++col) body(line * cells.w() + col, rows[col]);
  });
}

// Removed cells become 0.
void spread_visible(const Arguments& arguments) {
  const auto bytes = static_cast<size_t>(arguments.size('C')) * 4;
  const int64_t c = arguments.size('C');
  const float* x = arguments.input("x");
  float* out = arguments.output("out");
  for_each_cell(arguments, [&](int64_t cell, int64_t row) {
    if (row < 0) {
      memset(out + cell * c, 0, bytes);
    } else {
      memcpy(out + cell * c, x + row * c, bytes);
    }
  });
}

void spread_visible_backward(const Arguments& arguments) {
  const auto bytes = static_cast<size_t>(arguments.size('C')) * 4;
  const int64_t c = arguments.size('C');
  const float* dout = arguments.input("dout");
  float* dx = arguments.output("grad.x");
  for_each_cell(arguments, [&](int64_t cell, int64_t row) {
    if (row >= 0) memcpy(dx + row * c, dout + cell * c, bytes);
  });
}

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

MINDCV_OPERATOR(SpreadVisible, "x[N*S*T,P,P,C] mask[N,S,T] -> out[N,S*P,T*P,C]", spread_visible)
MINDCV_OPERATOR(SpreadVisibleGrad, "x[N*S*T,P,P,C] mask[N,S,T] dout[N,S*P,T*P,C] -> grad.x[N*S*T,P,P,C]",
                spread_visible_backward)
