#include "runtime/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace mindcv {
namespace {

constexpr size_t kCacheLineBytes = 64;
// How often a thread polls before it sleeps. A worker waits some 20 microseconds for the next job, as long as the gap
// between two parallel sections of a kernel. The calling thread waits ten times as long for tasks that have begun:
// after that, a worker has probably lost its core.
constexpr int kWorkerSpins = 2000, kCallerSpins = 20000;

// The core that this thread runs on, or -1 if the system does not tell.
int current_core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// Moves this thread to another core, and returns whether the process may use one.
bool leave_core([[maybe_unused]] int core) {
#if defined(__linux__)
  cpu_set_t others;
  if (sched_getaffinity(getpid(), sizeof(others), &others) != 0) return false;
  CPU_CLR(static_cast<size_t>(core), &others);
  return CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof(others), &others) == 0;
#else
  return false;
#endif
}

inline void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Set once, before the first kernel. 0 means one thread for each core that the process may use.
int wanted = 0;

int num_threads_wanted() {
  if (wanted > 0) return wanted;
#if defined(__linux__)
  cpu_set_t set;  // has room for 1024 cores; on a larger machine the call fails
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores > 0 ? static_cast<int>(cores) : 1;
}

struct Job {
  void (*task)(void*, int64_t) = nullptr;
  void* context = nullptr;
};

// A thread's share of the tasks: the next task, and the end of the share.
struct alignas(kCacheLineBytes) Share {
  std::atomic<int64_t> next{0};
  int64_t end = 0;
};

// Allocates memory that is aligned to a cache line.
void* allocate(size_t size) {
  void* data = nullptr;
  if (posix_memalign(&data, kCacheLineBytes, size) == 0) return data;
  throw std::runtime_error("the kernels need " + std::to_string((size >> 20) + 1) +
                           " MiB of memory for what lies between two steps, and the system has no more");
}

// Chunks of memory are kept for the next kernel: fresh memory costs a page fault every 4 KiB.
struct Chunk {
  char* data;
  size_t size;
};

struct Arena {
  std::vector<Chunk> chunks;
  size_t chunk = 0;
  size_t used = 0;

  void* take(size_t count) {
    count = (count + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
    while (chunk < chunks.size() && used + count > chunks[chunk].size) {
      ++chunk;
      used = 0;
    }
    if (chunk == chunks.size()) {
      constexpr size_t kMinChunk = size_t{8} << 20;
      size_t size = count > kMinChunk ? count : kMinChunk;
      chunks.reserve(chunks.size() + 1);
      chunks.push_back({static_cast<char*>(allocate(size)), size});
      used = 0;
    }
    char* found = chunks[chunk].data + used;
    used += count;
    return found;
  }

  void clear() {
    chunk = 0;
    used = 0;
  }
};

class Pool {
 public:
  Pool() : threads_(num_threads_wanted()), shares_(static_cast<size_t>(threads_)) {}

  int threads() const { return threads_; }

  void run(int64_t count, void (*task)(void*, int64_t), void* context) {
    if (threads_ == 1 || count <= 1) {
      for (int64_t i = 0; i < count; ++i) task(context, i);
      return;
    }
    start();
    has_failed_.store(false, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = {task, context};
      for (int64_t i = 0; i < threads_; ++i) {
        Share& share = shares_[static_cast<size_t>(i)];
        share.next.store(count * i / threads_, std::memory_order_relaxed);
        share.end = count * (i + 1) / threads_;
      }
      caller_core_.store(current_core(), std::memory_order_relaxed);
      generation_ += kGeneration;
      state_.store(generation_ | kIsOpen, std::memory_order_release);
    }
    wake_.notify_all();
    work(job_, 0);
    // All tasks have begun. A worker that comes later finds the job closed, so that nobody waits for it.
    state_.fetch_and(~kIsOpen, std::memory_order_acq_rel);
    wait_for_workers();
    if (has_failed_.load(std::memory_order_relaxed)) std::rethrow_exception(std::move(failure_));
  }

  // The lock of the kernel that uses the pool and the arena.
  std::mutex session;
  Arena arena;

 private:
  // The parts of `state_`: the number of workers in the job, whether workers may join it, whether the calling thread
  // sleeps until they have left, and the number of the job. The calling thread publishes a job when the one before is
  // closed and has no workers, so the data of a job changes only while nobody reads it.
  static constexpr uint64_t kNumWorkers = 0xffff, kIsOpen = 1 << 16, kCallerSleeps = 1 << 17, kGeneration = 1 << 18;

  void start() {
    for (; started_ < threads_; ++started_) {
      try {
        std::thread([this, i = started_] { loop(i); }).detach();
      } catch (const std::system_error& error) {
        throw std::runtime_error("the kernels could not start thread " + std::to_string(started_ + 1) + " of " +
                                 std::to_string(threads_) + " (" + error.what() +
                                 "); MINDCV_KERNELS_THREADS sets how many they use");
      }
    }
  }

  void loop(int thread) {
    uint64_t last = 0;  // the generation of the last job that this worker took part in
    for (;;) {
      uint64_t state = 0;
      const auto has_job = [&] {
        state = state_.load(std::memory_order_acquire);
        return (state & kIsOpen) != 0 && state / kGeneration != last;
      };
      for (int spin = leave_callers_core() ? kWorkerSpins : 0; spin > 0 && !has_job(); --spin) cpu_pause();
      if (!has_job()) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, has_job);
      }
      // Fails where another worker joins or leaves at the same time, and where the job was closed meanwhile.
      if (!state_.compare_exchange_strong(state, state + 1, std::memory_order_acq_rel)) continue;
      last = state / kGeneration;
      work(job_, thread);
      state = state_.fetch_sub(1, std::memory_order_acq_rel);
      if ((state & kCallerSleeps) == 0 || (state & kNumWorkers) != 1) continue;
      std::lock_guard<std::mutex> lock(mutex_);  // until the caller sleeps, since it decides that under the lock
      done_.notify_one();
    }
  }

  // Moves this worker away from the core of the calling thread, where it would only take processor time from that
  // thread. Returns whether it runs on another core. See decision 0030.
  bool leave_callers_core() const {
    const int core = caller_core_.load(std::memory_order_relaxed);
    return core < 0 || current_core() != core || leave_core(core);
  }

  // Waits until the workers have left the closed job. The calling thread sleeps where this takes long: the scheduler
  // then has a free core for a worker that lost its own. See decision 0030.
  void wait_for_workers() {
    const auto is_done = [&] { return (state_.load(std::memory_order_acquire) & kNumWorkers) == 0; };
    for (int spin = 0; spin < kCallerSpins && !is_done(); ++spin) cpu_pause();
    if (is_done()) return;
    std::unique_lock<std::mutex> lock(mutex_);
    state_.fetch_or(kCallerSleeps, std::memory_order_acq_rel);
    done_.wait(lock, is_done);
  }

  // Each thread first takes its own share of the tasks, which is the same in each step of a kernel, so that it finds
  // its own results in its cache. Then it helps the others. The first exception of a task is kept for the calling
  // thread, and tasks that have not begun are skipped. See decisions 0022 and 0033.
  void work(const Job& job, int thread) {
    for (int i = 0; i < threads_; ++i) {
      Share& share = shares_[static_cast<size_t>((thread + i) % threads_)];
      for (int64_t task; (task = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
        if (has_failed_.load(std::memory_order_relaxed)) return;
        try {
          job.task(job.context, task);
        } catch (...) {
          if (!has_failed_.exchange(true, std::memory_order_relaxed)) failure_ = std::current_exception();
        }
      }
    }
  }

  const int threads_;
  std::vector<Share> shares_;
  int started_ = 1;  // the calling thread is the first
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job job_;
  std::atomic<bool> has_failed_{false};
  std::exception_ptr failure_;
  uint64_t generation_ = 0;  // times kGeneration; only the calling thread uses it
  std::atomic<uint64_t> state_{0};
  std::atomic<int> caller_core_{-1};  // when it published the last job
};

// The pool is never destroyed: its threads may outlive main, and at exit the system frees everything.
Pool* pool = nullptr;
std::once_flag pool_once;

// In a forked process (a data-loader worker), only the thread that forked continues. It gets a new pool when it needs
// one. The old pool and its scratch memory are left alone, because its locks may be held. See decision 0030.
void after_fork() { pool = new Pool; }

Pool& the_pool() {
  std::call_once(pool_once, [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, after_fork);
  });
  return *pool;
}

struct ThreadScratch {
  void* data = nullptr;
  size_t size = 0;
  ~ThreadScratch() { free(data); }
};

thread_local ThreadScratch scratches[2];

}  // namespace

void parallel_tasks(int64_t count, void (*task)(void*, int64_t), void* context) {
  the_pool().run(count, task, context);
}

void set_pool_threads(int count) { wanted = count; }

int pool_threads() { return the_pool().threads(); }

Session::Session() {
  the_pool().session.lock();
  the_pool().arena.clear();
}

Session::~Session() { the_pool().session.unlock(); }

Session::Mark Session::mark() const { return {the_pool().arena.chunk, the_pool().arena.used}; }

void Session::rewind(Mark mark) {
  the_pool().arena.chunk = mark.chunk;
  the_pool().arena.used = mark.used;
}

void* Session::bytes(size_t count) { return the_pool().arena.take(count); }

void* thread_scratch(size_t count, int slot) {
  ThreadScratch& scratch = scratches[slot];
  if (scratch.size < count) {
    free(scratch.data);
    scratch.data = nullptr;
    scratch.size = 0;
    scratch.data = allocate(count);
    scratch.size = count;
  }
  return scratch.data;
}

}  // namespace mindcv

// Sets the number of threads (0: one for each core that the process may use), and returns how many there are.
extern "C" int mindcv_kernels_threads(int wanted) {
  mindcv::set_pool_threads(wanted);
  return mindcv::pool_threads();
}
