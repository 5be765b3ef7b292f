// Calls operators of a kernel library inside an emulator, for a process outside of it.
//
//   call_operators LIBRARY < requests > results
//
// Numbers are int64. A request is: threads, number of calls, and for each call: length of the name, name, number of
// inputs, number of outputs, for each array its number of dimensions and its dimensions, then the values of the inputs
// (float32). The results are the name of the instruction set and a newline, then for each call the values of the
// outputs and those of the inputs.
#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using OperatorFunction = int (*)(int, void**, int*, int64_t**, const char**, void*, void*);

[[noreturn]] void fail(const char* reason) {
  fprintf(stderr, "%s\n", reason);
  exit(1);
}

void read_bytes(void* to, size_t count) {
  if (count > 0 && fread(to, 1, count, stdin) != count) fail("the request is cut off");
}

int64_t read_number() {
  int64_t number;
  read_bytes(&number, sizeof(number));
  return number;
}

template <class F>
F function(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) fail(dlerror());
  return reinterpret_cast<F>(found);
}

void call(void* library) {
  std::string name(static_cast<size_t>(read_number()), ' ');
  read_bytes(&name[0], name.size());
  const auto inputs = static_cast<size_t>(read_number()), count = inputs + static_cast<size_t>(read_number());
  std::vector<std::vector<int64_t>> shapes(count);
  std::vector<std::vector<float>> values(count);
  for (size_t i = 0; i < count; ++i) {
    shapes[i].resize(static_cast<size_t>(read_number()));
    size_t size = 1;
    for (int64_t& dim : shapes[i]) size *= static_cast<size_t>(dim = read_number());
    values[i].assign(size, NAN);
  }
  std::vector<void*> args;
  std::vector<int> dims;
  std::vector<int64_t*> sizes;
  std::vector<const char*> types(count, "float32");
  for (size_t i = 0; i < count; ++i) {
    if (i < inputs) read_bytes(values[i].data(), values[i].size() * sizeof(float));
    args.push_back(values[i].data());
    dims.push_back(static_cast<int>(shapes[i].size()));
    sizes.push_back(shapes[i].data());
  }
  using Try = int (*)(OperatorFunction, int, void**, int*, int64_t**, const char**);
  if (function<Try>(library, "mindcv_try")(function<OperatorFunction>(library, name.c_str()), static_cast<int>(count),
                                           args.data(), dims.data(), sizes.data(), types.data()) != 0) {
    fail(function<const char* (*)()>(library, "mindcv_last_error")());
  }
  for (size_t i = 0; i < count; ++i) {
    const std::vector<float>& array = values[(inputs + i) % count];
    fwrite(array.data(), sizeof(float), array.size(), stdout);
  }
}

}  // namespace

int main(int, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) fail(dlerror());
  printf("%s\n", function<const char* (*)()>(library, "mindcv_kernels_isa")());
  function<void (*)(int)>(library, "mindcv_kernels_threads")(static_cast<int>(read_number()));
  for (int64_t calls = read_number(); calls > 0; --calls) call(library);
}
