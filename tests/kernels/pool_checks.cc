// Checks of the thread pool that need control over its threads. The argument names the check. The program ends with
// status 0 where it holds, says what is wrong where it does not, and does not end where the pool waits for ever.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "runtime/thread_pool.h"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "%s\n", what);
  exit(1);
}

int thread_id() { return static_cast<int>(syscall(SYS_gettid)); }

void pause_shortly() { usleep(1000); }

// Whether a thread of this process sleeps, as Linux reports it.
bool is_asleep(int thread) {
  FILE* file = fopen(("/proc/self/task/" + std::to_string(thread) + "/stat").c_str(), "r");
  require(file != nullptr, "the thread has ended");
  char state = '?';
  require(fscanf(file, "%*d (%*[^)]) %c", &state) == 1, "the state of a thread cannot be read");
  fclose(file);
  return state == 'S';
}

template <class Body>
void parallel(int64_t count, Body body) {
  mindcv::parallel_tasks(count, [](void* context, int64_t i) { (*static_cast<Body*>(context))(i); }, &body);
}

// A job whose tasks count how often they run. Returns how many of them ran on other threads than the caller's.
int run_counted_job(int64_t count) {
  const int caller = thread_id();
  std::vector<int> runs(static_cast<size_t>(count));
  std::atomic<int> elsewhere{0};
  parallel(count, [&](int64_t i) {
    ++runs[static_cast<size_t>(i)];
    if (thread_id() != caller) ++elsewhere;
  });
  for (int times : runs) require(times == 1, "a task did not run once");
  return elsewhere;
}

void run_until_worker_helps() {
  while (run_counted_job(64) == 0) pause_shortly();
}

// The id of the pool's worker, which takes one of two tasks while the caller has the other.
int find_worker() {
  const int caller = thread_id();
  std::atomic<int> worker{0};
  parallel(2, [&](int64_t) {
    if (thread_id() != caller) worker = thread_id();
    while (worker == 0) pause_shortly();
  });
  return worker;
}

int released[2];  // a pipe whose end tells the stopped thread to go on
std::atomic<bool> is_stopped{false};

void stop_here(int) {
  is_stopped = true;
  char byte;
  while (read(released[0], &byte, 1) != 1) {
  }
}

// A worker that the system does not run takes no part in a job, and the caller does not wait for it.
void check_stopped_worker() {
  mindcv::set_pool_threads(2);
  const int worker = find_worker();
  require(pipe(released) == 0, "there is no pipe");
  struct sigaction action{};
  action.sa_handler = stop_here;
  require(sigaction(SIGUSR1, &action, nullptr) == 0, "the signal has no handler");
  while (!is_asleep(worker)) pause_shortly();  // it waits for a job then, and holds no lock
  require(syscall(SYS_tgkill, getpid(), worker, SIGUSR1) == 0, "the worker cannot be stopped");
  while (!is_stopped) pause_shortly();
  for (int i = 0; i < 100; ++i) require(run_counted_job(64) == 0, "a stopped worker ran a task");
  require(write(released[1], "", 1) == 1, "the worker cannot be released");
  run_until_worker_helps();
}

// The caller sleeps while it waits for a task of a worker, and leaves its core to others.
void check_sleeping_caller() {
  mindcv::set_pool_threads(2);
  const int caller = thread_id();
  std::atomic<bool> is_with_worker{false};
  parallel(2, [&](int64_t) {
    if (thread_id() == caller) {
      while (!is_with_worker) pause_shortly();
    } else {
      is_with_worker = true;
      // Many looks, since the caller also sleeps for a moment in its own task.
      for (int seen = 0; seen < 20; pause_shortly()) seen = is_asleep(caller) ? seen + 1 : 0;
    }
  });
}

cpu_set_t only(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(static_cast<size_t>(core), &cores);
  return cores;
}

void confine(int thread, const cpu_set_t& cores) {
  require(sched_setaffinity(thread, sizeof(cores), &cores) == 0, "a thread cannot be confined to a core");
}

// Whether a thread may run on one core only.
bool is_confined_to(int thread, int core) {
  cpu_set_t cores;
  require(sched_getaffinity(thread, sizeof(cores), &cores) == 0, "the cores of a thread cannot be read");
  const cpu_set_t one = only(core);
  return CPU_EQUAL(&cores, &one) != 0;
}

// A worker leaves the core of the caller, unless the process may use no other.
void check_shared_core() {
  mindcv::set_pool_threads(2);
  const int caller = thread_id(), worker = find_worker();
  cpu_set_t all;
  require(sched_getaffinity(0, sizeof(all), &all) == 0, "the cores of the process cannot be read");
  if (CPU_COUNT(&all) == 1) return;
  const int core = sched_getcpu();
  confine(caller, only(core));
  confine(worker, only(core));
  for (int i = 0; i < 200; ++i, pause_shortly()) run_counted_job(64);
  require(is_confined_to(worker, core), "a worker left the only core of the process");
  confine(caller, all);
  // The caller may go to another core, so the worker is confined to the caller's core again and again.
  while (true) {
    const int here = sched_getcpu();
    confine(worker, only(here));
    for (int i = 0; i < 20; ++i, pause_shortly()) run_counted_job(64);
    if (!is_confined_to(worker, here)) return;
  }
}

// A forked process has a pool of its own, and the pool of the first process goes on.
void check_fork() {
  mindcv::set_pool_threads(2);
  run_until_worker_helps();
  const pid_t child = fork();
  if (child == 0) {
    run_until_worker_helps();
    _exit(0);
  }
  int status = 0;
  require(waitpid(child, &status, 0) == child && status == 0, "the pool of the forked process fails");
  run_until_worker_helps();
}

// Several threads use the pool in turn. Some tasks throw.
void check_many_jobs() {
  mindcv::set_pool_threads(4);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([caller] {
      for (int job = 0; job < 400; ++job) {
        mindcv::Session session;
        const int64_t count = 1 + (job * 7 + caller) % 40;
        run_counted_job(count);
        if (job % 10 != 0) continue;
        bool has_thrown = false;
        try {
          parallel(count, [&](int64_t i) {
            if (i == count / 2) throw std::runtime_error("planted");
          });
        } catch (const std::runtime_error& error) {
          has_thrown = strcmp(error.what(), "planted") == 0;
        }
        require(has_thrown, "the exception of a task did not reach the caller");
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 2, "one argument names the check");
  const std::string name = argv[1];
  if (name == "stopped_worker") {
    check_stopped_worker();
  } else if (name == "sleeping_caller") {
    check_sleeping_caller();
  } else if (name == "shared_core") {
    check_shared_core();
  } else if (name == "fork") {
    check_fork();
  } else if (name == "many_jobs") {
    check_many_jobs();
  } else {
    require(false, "there is no check of this name");
  }
  return 0;
}
