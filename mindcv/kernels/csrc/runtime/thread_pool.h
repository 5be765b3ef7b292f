// A thread pool that lives as long as the process, and the scratch memory of the kernel that uses it (decision 0030).
#pragma once
#include <cstddef>
#include <cstdint>

namespace mindcv {

// Runs task(context, i) for each i in [0, count) on all threads of the pool, and returns when all tasks are done. Any
// thread may run any task, so a result must depend on i alone and never on the thread. Where a task throws, the tasks
// that have begun end first, and then the exception reaches the caller (decision 0033).
void parallel_tasks(int64_t count, void (*task)(void* context, int64_t i), void* context);

// Sets the number of threads, the calling thread included; 0 means one for each core. It has an effect only before the
// first kernel.
void set_pool_threads(int count);
int pool_threads();

// Exclusive use of the pool and of its scratch memory while one kernel runs. MindSpore may run independent operators at
// the same time.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Memory that is aligned to a cache line, not cleared, and valid until the session ends. Throws std::runtime_error.
  void* bytes(size_t count);

  // rewind() frees the memory that was taken after mark().
  struct Mark {
    size_t chunk, used;
  };
  Mark mark() const;
  void rewind(Mark mark);

  float* floats(int64_t count) { return static_cast<float*>(bytes(static_cast<size_t>(count) * sizeof(float))); }
};

// Scratch memory of the calling thread, valid until the thread's next call for the same slot. There are two slots, so
// that a task that uses one may call functions that use the other.
void* thread_scratch(size_t count, int slot = 0);

}  // namespace mindcv
