// A parallel loop on the thread pool.
#pragma once
#include "runtime/thread_pool.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

// Calls body(i) for each i in [0, count), on all threads of the pool. The order is unspecified.
template <class F>
void parallel(int64_t count, F&& body) {
  struct Task {
    static void run(void* context, int64_t i) { (*static_cast<F*>(context))(i); }
  };
  parallel_tasks(count, Task::run, const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
