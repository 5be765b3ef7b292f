// Checks a call of an operator against the operator's signature, a text such as
//
//   x[N,H,W,I] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]
//
// mindcv/kernels/signatures.py explains these texts, holds the same ones and checks the same in Python.
#pragma once
#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

namespace mindcv {

// What MindSpore calls an operator with: the arrays of inputs and outputs in one list, with their shapes and types.
struct Call {
  int count;
  void* const* args;
  const int* dims;
  const int64_t* const* shapes;
  const char* const* types;
};

class Signature {
 public:
  // Floats of a packed weight [n, k].
  using PackedFloats = int64_t (*)(bool bf16, int64_t k, int64_t n);

  explicit Signature(const char* text) {
    const char* at = text;
    while (*at != '\0') {
      if (strncmp(at, "-> ", 3) == 0) {
        at += 3;
        has_outputs_ = true;
      }
      Part part{strncmp(at, "n*(", 3) == 0, has_outputs_, {}};
      if (part.is_repeated) at += 3;
      do {
        part.arguments.push_back(parse_argument(&at));
        at += *at == ' ' && part.is_repeated;
      } while (part.is_repeated && *at != ')');
      at += part.is_repeated;
      at += *at == ' ';
      parts_.push_back(part);
    }
  }

  // Throws std::invalid_argument, whose one sentence names the operator, the argument, what came and what is expected.
  void check(const char* name, bool bf16, PackedFloats packed, const Call& call) const {
    Check{name, bf16, packed, call, given(name, call)}.run();
  }

 private:
  struct Argument {
    std::string name;
    std::string text;  // [N, H/k, ...]
    bool has_rest;     // `...` comes before the dimensions
    std::vector<std::string> dims;
  };

  // One argument, or those that are repeated together.
  struct Part {
    bool is_repeated, is_output;
    std::vector<Argument> arguments;
  };

  // An argument of a call; `repetition` counts from 1 and is 0 for an argument that is not repeated.
  struct Given {
    const Argument* argument;
    bool is_output;
    int repetition, times;
    int dims;
    const int64_t* shape;
  };

  static Argument parse_argument(const char** at) {
    const char* end = strchr(*at, '[');
    Argument found{std::string(*at, end), "[", false, {}};
    std::string dim;
    int depth = 0;
    for (*at = end + 1;; ++*at) {
      const char c = **at;
      if (depth == 0 && (c == ',' || c == ']')) {
        found.text += dim + (c == ',' ? ", " : "]");
        if (dim == "...") {
          found.has_rest = true;
        } else {
          found.dims.push_back(dim);
        }
        dim.clear();
        if (c == ']') break;
        continue;
      }
      depth += (c == '(') - (c == ')');
      dim += c;
    }
    ++*at;
    return found;
  }

  std::vector<Given> given(const char* name, const Call& call) const {
    int fixed = 0, repeated = 0;
    for (const Part& part : parts_) (part.is_repeated ? repeated : fixed) += static_cast<int>(part.arguments.size());
    const int times = repeated > 0 ? (call.count - fixed) / repeated : 0;
    if (fixed + times * repeated != call.count || (repeated > 0 && times < 1)) {
      std::string text = "the kernel " + std::string(name) + " got " + std::to_string(call.count) +
                         " inputs and outputs; it expects " + std::to_string(fixed);
      if (repeated > 0) text += " and a multiple of " + std::to_string(repeated);
      throw std::invalid_argument(text);
    }
    std::vector<Given> found;
    found.reserve(static_cast<size_t>(call.count));
    for (const Part& part : parts_) {
      const int last = part.is_repeated ? times : 0;
      for (int repetition = part.is_repeated ? 1 : 0; repetition <= last; ++repetition) {
        for (const Argument& argument : part.arguments) {
          const size_t i = found.size();
          const int dims = call.shapes[i] == nullptr || call.dims[i] < 0 ? 0 : call.dims[i];
          found.push_back({&argument, part.is_output, repetition, times, dims, call.shapes[i]});
        }
      }
    }
    return found;
  }

  struct Check {
    const char* name;
    bool bf16;
    PackedFloats packed;
    const Call& call;
    std::vector<Given> given;
    int64_t symbols[128] = {};
    struct Rest {
      const int64_t* shape = nullptr;
      int dims = -1;
    };
    std::vector<Rest> rests{};

    void run() {
      rests.resize(static_cast<size_t>(given.back().times) + 1);
      symbols[static_cast<int>('n')] = given.back().times;
      for (size_t i = 0; i < given.size(); ++i) check_memory(i);
      for (const Given& each : given) bind(each);
      for (const Given& each : given) compare(each);
    }

    // Its type, and a size that memory can have.
    void check_memory(size_t i) {
      constexpr int64_t kMost = int64_t{1} << 45;  // elements; more than the addresses of a process
      const Given& each = given[i];
      const char* type = call.types == nullptr || call.types[i] == nullptr ? "unknown" : call.types[i];
      if (strcmp(type, "float32") != 0) {
        throw std::invalid_argument("the kernel " + std::string(name) + " got " + name_of(each) + " of type " + type +
                                    "; it expects float32");
      }
      int64_t count = 1;
      for (int axis = 0; axis < each.dims; ++axis) {
        const int64_t size = each.shape[axis];
        if (size < 0 || (size > 0 && count > kMost / size)) fail(each, "sizes from 0 to what memory holds");
        count *= size;
      }
      if (count > 0 && call.args[i] == nullptr) fail(each, "an address of its values");
    }

    void bind(const Given& each) {
      const Argument& argument = *each.argument;
      const int dims = static_cast<int>(argument.dims.size()), first = each.dims - dims;
      if (first < 0 || (first > 0 && !argument.has_rest)) {
        fail(each, std::string(argument.has_rest ? "at least " : "") + std::to_string(dims) + " dimension" +
                       (dims == 1 ? "" : "s") + ", " + argument.text);
      }
      for (int i = 0; i < dims; ++i) {
        const int64_t size = each.shape[first + i];
        const std::string& dim = argument.dims[static_cast<size_t>(i)];
        if (size == 0) fail(each, argument.text + " with every dimension at least 1");
        int64_t& symbol = symbols[static_cast<int>(dim[0]) & 127];
        if (!each.is_output && dim.size() == 1 && isalpha(dim[0]) && symbol == 0) symbol = size;
      }
      Rest& rest = rests[static_cast<size_t>(each.repetition)];
      if (argument.has_rest && rest.dims < 0) rest = {each.shape, first};
    }

    void compare(const Given& each) {
      const Argument& argument = *each.argument;
      std::vector<int64_t> expected;
      if (argument.has_rest) {
        const Rest& rest = rests[static_cast<size_t>(each.repetition)];
        expected.assign(rest.shape, rest.shape + rest.dims);
      }
      for (const std::string& dim : argument.dims) {
        const char* at = dim.c_str();
        const int64_t size = product(&at);
        if (size < 1) fail(given[0], dim + " to be at least 1" + values_in(dim));
        expected.push_back(size);
      }
      const int64_t* shape = each.shape;
      if (static_cast<size_t>(each.dims) == expected.size() && std::equal(expected.begin(), expected.end(), shape)) {
        return;
      }
      std::string sentence = argument.text + ", which is " + shape_text(expected.data(), expected.size());
      if (&each != &given[0] && given[0].repetition == 0) {
        sentence += " beside " + name_of(given[0]) + " of shape " +
                    shape_text(given[0].shape, static_cast<size_t>(given[0].dims));
      }
      fail(each, sentence);
    }

    // The values of an expression of numbers, symbols, products, quotients and calls.
    int64_t product(const char** at) const {
      int64_t value = factor(at);
      while (**at == '*' || **at == '/') {
        const bool is_product = **at == '*';
        ++*at;
        const int64_t right = factor(at);
        if (is_product) {
          value = times(value, right);
        } else {
          value /= right < 1 ? 1 : right;
        }
      }
      return value;
    }

    int64_t factor(const char** at) const {
      if (isdigit(**at)) {
        int64_t value = 0;
        for (; isdigit(**at); ++*at) value = 10 * value + **at - '0';
        return value;
      }
      const char* begin = *at;
      while (isalpha(**at) || **at == '_') ++*at;
      if (**at != '(') return symbols[static_cast<int>(*begin) & 127];
      const bool is_patch = strncmp(begin, "packed_patch(", 13) == 0;
      int64_t values[3] = {};
      for (int i = 0; **at == '(' || **at == ','; ++i) {
        ++*at;
        values[i] = product(at);
      }
      ++*at;
      if (!is_patch) return packed_floats(values[0], values[1]);
      const int64_t k = values[0] < 1 ? 1 : values[0];
      return (packed_floats(times(times(k, k), values[1]), values[2]) + k - 1) / k;
    }

    int64_t packed_floats(int64_t k, int64_t n) const {
      times(k, n);  // throws where the product is too large
      return packed(bf16, k, n);
    }

    static int64_t times(int64_t a, int64_t b) {
      int64_t value = 0;
      if (__builtin_mul_overflow(a, b, &value) || value > int64_t{1} << 45) {
        throw std::invalid_argument("a kernel's arguments have sizes that memory cannot hold");
      }
      return value;
    }

    std::string values_in(const std::string& dim) const {
      std::string text;
      for (char c : dim) {
        if (!isalpha(c)) continue;
        text += (text.empty() ? " (" : ", ") + std::string(1, c) + " = " + std::to_string(symbols[static_cast<int>(c)]);
      }
      return text.empty() ? text : text + ")";
    }

    static std::string name_of(const Given& each) {
      if (each.repetition == 0) return each.argument->name;
      return each.argument->name + " (" + std::to_string(each.repetition) + " of " + std::to_string(each.times) + ")";
    }

    static std::string shape_text(const int64_t* shape, size_t dims) {
      std::string text = "[";
      for (size_t i = 0; i < dims; ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
      return text + "]";
    }

    [[noreturn]] void fail(const Given& each, const std::string& expected) const {
      throw std::invalid_argument("the kernel " + std::string(name) + " got " + name_of(each) + " of shape " +
                                  shape_text(each.shape, static_cast<size_t>(each.dims)) + "; it expects " + expected);
    }
  };

  bool has_outputs_ = false;
  std::vector<Part> parts_;
};

}  // namespace mindcv
