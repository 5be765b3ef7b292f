// A pool of threads that lives as long as the process, and the scratch memory of the kernel that has it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mindcv {

// Runs task(context, i) for each i in [0, count), on all threads of the pool, and returns when all are done. Which
// thread runs which task is left to chance: a result must depend on i alone, never on the thread. Where a task throws,
// the tasks that have begun end first, and then the exception reaches the caller.
void parallel_tasks(int64_t count, void (*task)(void* context, int64_t i), void* context);

// How many threads the pool shall have, the calling one included; 0 is one a core. Before the first kernel only.
void set_pool_threads(int count);
int pool_threads();

// Exclusive use of the pool and of its scratch memory, for the length of one kernel: MindSpore may run independent
// operators at once.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Memory aligned to a cache line, not cleared, valid to the end of the session. Throws std::runtime_error.
  void* bytes(size_t count);

  // Gives back what was taken after the mark.
  struct Mark {
    size_t block, used;
  };
  Mark mark() const;
  void rewind(Mark mark);

  float* floats(int64_t count) { return static_cast<float*>(bytes(static_cast<size_t>(count) * sizeof(float))); }
};

// Scratch memory of the calling thread, valid until its next call for the same of two slots: a task that has one may
// call functions that take the other.
void* thread_scratch(size_t count, int slot = 0);

}  // namespace mindcv
