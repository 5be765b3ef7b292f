// The choice of the instruction set, and a record of what the library was built from.
//
// The build defines MINDCV_STAMP (see build.py).
#include "runtime/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/registry.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace {

#if defined(__x86_64__) && defined(__linux__)
// Linux gives the state of the tile registers to processes that ask for it.
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
#elif defined(__aarch64__) && defined(__linux__)
bool has_neon_bf16() {
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16, which older headers lack
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
}
#endif

// The sets that were built and that the processor has, best first.
class UsableSets {
 public:
  UsableSets() {
#if defined(__x86_64__) && defined(__linux__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool avx512_bf16 = avx512 && has_avx512_bf16();
    const bool amx = avx512_bf16 && has_amx_bf16();
    if (amx && mindcv::is_built("amx") && may_use_tiles()) add("amx");
    if (avx512_bf16 && mindcv::is_built("avx512_bf16")) add("avx512_bf16");
    if (avx512 && mindcv::is_built("avx512")) add("avx512");
    if (avx2 && mindcv::is_built("avx2")) add("avx2");
#elif defined(__aarch64__) && defined(__linux__)
    if (has_neon_bf16() && mindcv::is_built("neon_bf16")) add("neon_bf16");
#endif
    add("generic");
    const char* wanted = getenv("MINDCV_KERNELS_ISA");
    for (int i = 0; wanted != nullptr && i < count_; ++i) {
      if (strcmp(wanted, sets_[i]) == 0) chosen_ = i;
    }
  }

  // From the set that MINDCV_KERNELS_ISA names (Python has refused a name that is not here), else from the best.
  const char* const* in_use() const { return sets_ + chosen_; }

  // The names of all usable sets with a space between.
  const char* names() const { return names_; }

 private:
  void add(const char* name) {
    if (count_ > 0) strcat(names_, " ");
    strcat(names_, name);
    sets_[count_++] = name;
  }

  const char* sets_[6] = {};  // the last one stays null
  char names_[64] = "";
  int count_ = 0, chosen_ = 0;
};

const UsableSets& usable_sets() {
  static const UsableSets found;
  return found;
}

}  // namespace

const char* mindcv::instruction_set() { return usable_sets().in_use()[0]; }
const char* const* mindcv::instruction_sets_in_use() { return usable_sets().in_use(); }

extern "C" {
// Python looks for this text in the file, so that it can refuse a library of other sources without loading it.
extern const char mindcv_kernels_stamp[];
const char mindcv_kernels_stamp[] = MINDCV_STAMP;

const char* mindcv_kernels_isa() { return mindcv::instruction_set(); }
const char* mindcv_kernels_usable() { return usable_sets().names(); }
}
