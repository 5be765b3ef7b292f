// The text of a thread's last exception, for callers that cannot take exceptions (ctypes). See decision 0033.
#pragma once
#include <exception>
#include <new>
#include <string>

namespace mindcv {

inline std::string& last_error() {
  static thread_local std::string text;
  return text;
}

// Calls run() and returns 0. Where run() throws, `last_error` has the reason, and the function returns 1 for a lack of
// memory and 2 for anything else.
template <class F>
int with_last_error(F&& run) {
  try {
    run();
    return 0;
  } catch (const std::bad_alloc&) {
    last_error() = "there is not enough memory";
    return 1;
  } catch (const std::exception& error) {
    last_error() = error.what();
    return 2;
  }
}

}  // namespace mindcv
