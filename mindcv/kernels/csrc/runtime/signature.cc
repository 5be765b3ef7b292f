#include "runtime/signature.h"

#include <ctype.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "runtime/operator.h"

namespace mindcv {
namespace {

// The number of elements that no array exceeds: it is more than a process has addresses.
constexpr int64_t kMaxElements = int64_t{1} << 45;

Signature::Argument parse_argument(const char** at, bool is_output) {
  const char* end = strchr(*at, '[');
  Signature::Argument found{std::string(*at, end), "[", false, is_output, {}};
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

int64_t times(int64_t a, int64_t b) {
  int64_t value = 0;
  if (__builtin_mul_overflow(a, b, &value) || value > kMaxElements) {
    throw std::invalid_argument("a kernel's arguments have sizes that memory cannot hold");
  }
  return value;
}

std::string shape_text(const int64_t* shape, size_t dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims; ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

Signature::Signature(const OperatorEntry& entry) : entry_(entry) {
  bool has_outputs = false;
  const char* at = entry.signature;
  while (*at != '\0') {
    if (strncmp(at, "-> ", 3) == 0) {
      at += 3;
      has_outputs = true;
    }
    Part part{strncmp(at, "n*(", 3) == 0, {}};
    if (part.is_repeated) at += 3;
    do {
      part.arguments.push_back(parse_argument(&at, has_outputs));
      at += *at == ' ' && part.is_repeated;
    } while (part.is_repeated && *at != ')');
    at += part.is_repeated;
    at += *at == ' ';
    parts_.push_back(part);
  }
}

CheckedCall::CheckedCall(const Signature& signature, const Call& call) : signature_(signature), call_(call) {
  name_arguments();
  rests_.resize(static_cast<size_t>(times_) + 1);
  sizes_[static_cast<int>('n')] = times_;
  for (size_t i = 0; i < given_.size(); ++i) check_memory(i);
  for (const Given& given : given_) bind_sizes(given);
  for (const Given& given : given_) compare_sizes(given);
}

CheckedCall::Place CheckedCall::find(const char* name) const {
  int64_t first = 0;
  for (const Signature::Part& part : signature_.parts()) {
    const auto step = static_cast<int64_t>(part.arguments.size()), repetitions = part.is_repeated ? times_ : 1;
    for (int64_t i = 0; i < step; ++i) {
      const Signature::Argument& argument = part.arguments[static_cast<size_t>(i)];
      if (argument.name == name) return {&argument, first + i, step, repetitions};
    }
    first += step * repetitions;
  }
  return {nullptr, 0, 0, 0};
}

void* CheckedCall::values(const Place& place, int64_t repetition) const {
  if (repetition < 0 || repetition >= place.repetitions) {
    throw std::logic_error(std::string(name()) + " reads a repetition that the call does not have");
  }
  return call_.args[place.first + repetition * place.step];
}

int64_t CheckedCall::size(char letter) const {
  const int64_t found = sizes_[static_cast<int>(letter) & 127];
  if (found < 1) throw std::logic_error(std::string(name()) + " reads a size that its signature does not have");
  return found;
}

int64_t CheckedCall::rest_size(int64_t repetition) const {
  const Rest& rest = rests_.at(static_cast<size_t>(repetition + (times_ > 0)));
  int64_t size = 1;
  for (int axis = 0; axis < rest.dims; ++axis) size *= rest.shape[axis];
  return size;
}

void CheckedCall::name_arguments() {
  int64_t fixed = 0, repeated = 0;
  for (const Signature::Part& part : signature_.parts()) {
    (part.is_repeated ? repeated : fixed) += static_cast<int64_t>(part.arguments.size());
  }
  times_ = repeated > 0 ? (call_.count - fixed) / repeated : 0;
  if (fixed + times_ * repeated != call_.count || (repeated > 0 && times_ < 1)) {
    std::string text = "the kernel " + std::string(name()) + " got " + std::to_string(call_.count) +
                       " inputs and outputs; it expects " + std::to_string(fixed);
    if (repeated > 0) text += " and a multiple of " + std::to_string(repeated);
    throw std::invalid_argument(text);
  }
  given_.reserve(static_cast<size_t>(call_.count));
  for (const Signature::Part& part : signature_.parts()) {
    const int64_t last = part.is_repeated ? times_ : 0;
    for (int64_t repetition = part.is_repeated ? 1 : 0; repetition <= last; ++repetition) {
      for (const Signature::Argument& argument : part.arguments) {
        const size_t i = given_.size();
        const int dims = call_.shapes[i] == nullptr || call_.dims[i] < 0 ? 0 : call_.dims[i];
        given_.push_back({&argument, repetition, dims, call_.shapes[i]});
      }
    }
  }
}

// Checks that the type is float32, and that memory can hold the array.
void CheckedCall::check_memory(size_t i) const {
  const Given& given = given_[i];
  const char* type = call_.types == nullptr || call_.types[i] == nullptr ? "unknown" : call_.types[i];
  if (strcmp(type, "float32") != 0) {
    throw std::invalid_argument("the kernel " + std::string(name()) + " got " + name_of(given) + " of type " + type +
                                "; it expects float32");
  }
  int64_t count = 1;
  for (int axis = 0; axis < given.dims; ++axis) {
    const int64_t size = given.shape[axis];
    if (size < 0 || (size > 0 && count > kMaxElements / size)) fail(given, "sizes from 0 to what memory holds");
    count *= size;
  }
  if (count > 0 && call_.args[i] == nullptr) fail(given, "an address of its values");
}

// Finds the sizes that letters and `...` stand for: the first argument that has one decides.
void CheckedCall::bind_sizes(const Given& given) {
  const Signature::Argument& argument = *given.argument;
  const int dims = static_cast<int>(argument.dims.size()), first = given.dims - dims;
  if (first < 0 || (first > 0 && !argument.has_rest)) {
    fail(given, std::string(argument.has_rest ? "at least " : "") + std::to_string(dims) + " dimension" +
                    (dims == 1 ? "" : "s") + ", " + argument.text);
  }
  for (int i = 0; i < dims; ++i) {
    const int64_t size = given.shape[first + i];
    const std::string& dim = argument.dims[static_cast<size_t>(i)];
    if (size == 0) fail(given, argument.text + " with every dimension at least 1");
    int64_t& bound = sizes_[static_cast<int>(dim[0]) & 127];
    if (!argument.is_output && dim.size() == 1 && isalpha(dim[0]) && bound == 0) bound = size;
  }
  Rest& rest = rests_[static_cast<size_t>(given.repetition)];
  if (argument.has_rest && rest.dims < 0) rest = {given.shape, first};
}

void CheckedCall::compare_sizes(const Given& given) const {
  const Signature::Argument& argument = *given.argument;
  const Given& first = given_[0];
  std::vector<int64_t> expected;
  if (argument.has_rest) {
    const Rest& rest = rests_[static_cast<size_t>(given.repetition)];
    expected.assign(rest.shape, rest.shape + rest.dims);
  }
  for (const std::string& dim : argument.dims) {
    const char* at = dim.c_str();
    const int64_t size = product(&at);
    if (size < 1) fail(first, dim + " to be at least 1" + sizes_in(dim));
    expected.push_back(size);
  }
  if (static_cast<size_t>(given.dims) == expected.size() && std::equal(expected.begin(), expected.end(), given.shape)) {
    return;
  }
  std::string sentence = argument.text + ", which is " + shape_text(expected.data(), expected.size());
  if (&given != &first && first.repetition == 0) {
    sentence += " beside " + name_of(first) + " of shape " + shape_text(first.shape, static_cast<size_t>(first.dims));
  }
  fail(given, sentence);
}

// The values of an expression of numbers, letters, products, quotients and function calls.
int64_t CheckedCall::product(const char** at) const {
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

int64_t CheckedCall::factor(const char** at) const {
  if (isdigit(**at)) {
    int64_t value = 0;
    for (; isdigit(**at); ++*at) value = 10 * value + **at - '0';
    return value;
  }
  const char* begin = *at;
  while (isalpha(**at) || **at == '_') ++*at;
  if (**at != '(') return sizes_[static_cast<int>(*begin) & 127];
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

int64_t CheckedCall::packed_floats(int64_t k, int64_t n) const {
  times(k, n);  // throws where the product is too large
  return signature_.packed_floats(k, n);
}

std::string CheckedCall::sizes_in(const std::string& dim) const {
  std::string text;
  for (char c : dim) {
    if (!isalpha(c)) continue;
    text += (text.empty() ? " (" : ", ") + std::string(1, c) + " = " + std::to_string(sizes_[static_cast<int>(c)]);
  }
  return text.empty() ? text : text + ")";
}

std::string CheckedCall::name_of(const Given& given) const {
  if (given.repetition == 0) return given.argument->name;
  return given.argument->name + " (" + std::to_string(given.repetition) + " of " + std::to_string(times_) + ")";
}

void CheckedCall::fail(const Given& given, const std::string& expected) const {
  throw std::invalid_argument("the kernel " + std::string(name()) + " got " + name_of(given) + " of shape " +
                              shape_text(given.shape, static_cast<size_t>(given.dims)) + "; it expects " + expected);
}

namespace {

void* argument_of(const CheckedCall& call, const char* name, bool is_output, int64_t repetition) {
  const CheckedCall::Place place = call.find(name);
  if (place.argument == nullptr || place.argument->is_output != is_output) {
    throw std::logic_error(std::string(call.name()) + " has no " + (is_output ? "output " : "input ") + name);
  }
  return call.values(place, repetition);
}

}  // namespace

const float* Arguments::input(const char* name, int64_t repetition) const {
  return static_cast<const float*>(argument_of(call_, name, false, repetition));
}

float* Arguments::output(const char* name, int64_t repetition) const {
  return static_cast<float*>(argument_of(call_, name, true, repetition));
}

float* Arguments::in_out(const char* name, int64_t repetition) const {
  return static_cast<float*>(argument_of(call_, name, false, repetition));
}

const float* Arguments::optional_input(const char* name, int64_t repetition) const {
  return call_.find(name).argument == nullptr ? nullptr : input(name, repetition);
}

float* Arguments::optional_output(const char* name) const {
  return call_.find(name).argument == nullptr ? nullptr : output(name);
}

int64_t Arguments::size(char letter) const { return call_.size(letter); }

int64_t Arguments::rest_size(int64_t repetition) const { return call_.rest_size(repetition); }

int64_t Arguments::repetitions() const { return call_.repetitions(); }

}  // namespace mindcv
