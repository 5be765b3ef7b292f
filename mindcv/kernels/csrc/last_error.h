// The text of the last exception of a thread, for callers that cannot take exceptions (ctypes).
#pragma once
#include <exception>
#include <string>

namespace mindcv {

inline std::string& last_error() {
  static thread_local std::string text;
  return text;
}

// Runs `run` and gives 0, or 1 where it throws; `last_error` then has the reason.
template <class F>
int with_last_error(F&& run) {
  try {
    run();
    return 0;
  } catch (const std::exception& error) {
    last_error() = error.what();
    return 1;
  }
}

}  // namespace mindcv
