#include "runtime/registry.h"

#include <string.h>

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "runtime/dispatch.h"
#include "runtime/last_error.h"
#include "runtime/operator.h"
#include "runtime/signature.h"

namespace mindcv {
namespace {

// Static objects of other files prepend to these lists, in any order, before anything reads them.
const OperatorEntry* operators = nullptr;
const ImageKernelEntry* image_kernels = nullptr;

template <class Entry>
const Entry* find(const Entry* list, const char* name, const char* isa) {
  for (const Entry* entry = list; entry != nullptr; entry = entry->next) {
    if (strcmp(entry->name, name) == 0 && strcmp(entry->isa, isa) == 0) return entry;
  }
  return nullptr;
}

template <class Entry>
const Entry& find_in_use(const Entry* list, const char* name) {
  for (const char* const* isa = instruction_sets_in_use(); *isa != nullptr; ++isa) {
    const Entry* entry = find(list, name, *isa);
    if (entry != nullptr) return *entry;
  }
  throw std::logic_error("no instruction set in use has the kernel " + std::string(name));
}

// Parsed once for each operator.
const Signature& signature_of(const OperatorEntry& entry) {
  static std::mutex mutex;
  static std::map<const OperatorEntry*, std::unique_ptr<Signature>> parsed;
  std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Signature>& found = parsed[&entry];
  if (found == nullptr) found = std::make_unique<Signature>(entry);
  return *found;
}

// A line for each operator, its name and its signature, in the order of the names.
std::string all_signatures() {
  std::map<std::string, std::string> found;
  for (const OperatorEntry* entry = operators; entry != nullptr; entry = entry->next) {
    std::string& text = found.emplace(entry->name, entry->signature).first->second;
    if (text != entry->signature) text = "<differs between instruction sets>";
  }
  std::string lines;
  for (const auto& [name, text] : found) lines += name + " " + text + "\n";
  return lines;
}

}  // namespace

OperatorEntry::OperatorEntry(const char* entry_name, const char* entry_isa, const char* entry_signature,
                             Function entry_function, PackedFloats entry_packed_floats)
    : name(entry_name),
      isa(entry_isa),
      signature(entry_signature),
      function(entry_function),
      packed_floats(entry_packed_floats),
      next(operators) {
  operators = this;
}

ImageKernelEntry::ImageKernelEntry(const char* entry_name, const char* entry_isa, Function entry_function, void*)
    : name(entry_name), isa(entry_isa), function(entry_function), next(image_kernels) {
  image_kernels = this;
}

RegisteredOperator::RegisteredOperator(const char* name)
    : entry_(find_in_use(operators, name)), signature_(signature_of(entry_)) {}

void RegisteredOperator::run(const Call& call) const {
  const CheckedCall checked(signature_, call);
  entry_.function(Arguments(checked));
}

ImageKernelEntry::Function find_image_kernel(const char* name) { return find_in_use(image_kernels, name).function; }

bool is_built(const char* isa) {
  for (const OperatorEntry* entry = operators; entry != nullptr; entry = entry->next) {
    if (strcmp(entry->isa, isa) == 0) return true;
  }
  return false;
}

}  // namespace mindcv

extern "C" {
using OperatorFunction = int (*)(int count, void** args, int* dims, int64_t** shapes, const char** types, void* stream,
                                 void* extra);

// Calls an operator for a caller that cannot take C++ exceptions. Returns 0, or else `mindcv_last_error` has the
// reason.
int mindcv_try(OperatorFunction run, int count, void** args, int* dims, int64_t** shapes, const char** types) {
  return mindcv::with_last_error([&] { run(count, args, dims, shapes, types, nullptr, nullptr); });
}

const char* mindcv_last_error() { return mindcv::last_error().c_str(); }

// The signature of an operator, or null where there is none of that name.
const char* mindcv_signature(const char* name) {
  const mindcv::OperatorEntry* entry = mindcv::find(mindcv::operators, name, "generic");
  return entry == nullptr ? nullptr : entry->signature;
}

// The names and signatures of all operators. Python compares them with its own table when it loads the library. See
// decision 0033.
const char* mindcv_signatures() {
  static const std::string lines = mindcv::all_signatures();
  return lines.c_str();
}

// The number of floats of a packed weight [n, k].
int64_t mindcv_packed_floats(int is_bf16, int64_t k, int64_t n) {
  static const mindcv::RegisteredOperator float32("PackWeight"), bfloat16("PackWeightBf16");
  return (is_bf16 != 0 ? bfloat16 : float32).packed_floats(k, n);
}
}
