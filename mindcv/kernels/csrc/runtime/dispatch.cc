// The choice of the instruction set, and a record of what the library was built from.
//
// The build defines MINDCV_HAS_<SET> for each set that it compiled, and MINDCV_STAMP (see build.py).
#include <stdlib.h>
#include <string.h>

#include "runtime/kernels.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

using mindcv::Kernels;

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

// The sets that were built and that the processor has, best first.
class Usable {
 public:
  Usable() {
#if defined(__x86_64__) && defined(__linux__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool amx = avx512 && has_amx_bf16() && has_avx512_bf16() && may_use_tiles();
#if defined(MINDCV_HAS_AMX)
    if (amx) add(mindcv::kAmxKernels);
#endif
#if defined(MINDCV_HAS_AVX512)
    if (avx512) add(mindcv::kAvx512Kernels);
#endif
#if defined(MINDCV_HAS_AVX2)
    if (avx2) add(mindcv::kAvx2Kernels);
#endif
    (void)avx2, (void)amx;
#endif
    add(mindcv::kGenericKernels);
  }

  // The set that MINDCV_KERNELS_ISA names, else the best. Python has refused a name that is not here.
  const Kernels* choose() const {
    const char* wanted = getenv("MINDCV_KERNELS_ISA");
    for (int i = 0; wanted != nullptr && i < count_; ++i) {
      if (strcmp(wanted, sets_[i]->name) == 0) return sets_[i];
    }
    return sets_[0];
  }

  // Their names with a space between.
  const char* names() const { return names_; }

 private:
  void add(const Kernels& kernels) {
    if (count_ > 0) strcat(names_, " ");
    strcat(names_, kernels.name);
    sets_[count_++] = &kernels;
  }

  const Kernels* sets_[4];
  char names_[64] = "";
  int count_ = 0;
};

const Usable& usable() {
  static const Usable found;
  return found;
}

}  // namespace

const Kernels& mindcv::kernels() {
  static const Kernels* chosen = usable().choose();
  return *chosen;
}

extern "C" {
// Python looks for this text in the file, so that a library of other sources need not be loaded to be refused.
extern const char mindcv_kernels_stamp[];
const char mindcv_kernels_stamp[] = MINDCV_STAMP;

const char* mindcv_kernels_isa() { return mindcv::kernels().name; }
const char* mindcv_kernels_usable() { return usable().names(); }
}
