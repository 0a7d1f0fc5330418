#include "runtime/parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastgru {
namespace {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A worker that has finished spins this often before it sleeps: about 100 us, longer than Python needs between
// two kernels of a training step, shorter than anybody would notice as load.
constexpr int kSpinsBeforeSleep = 4000;
// A barrier is passed within microseconds unless there are more threads than processors; then give way.
constexpr int kSpinsBeforeYield = 1000;

// Denormals cost a hundred cycles each and mean nothing here (sigmoid(-100) is one).
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040U); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (1UL << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  unsigned long saved_;
#endif
};

struct Job {
  void (*body)(void*, Team&) = nullptr;
  void* context = nullptr;
  int size = 0;
  Team::Shared shared;
};

class Pool {
 public:
  // Never joined: the pool is leaked on purpose, so that neither interpreter shutdown nor a fork has to wait
  // for threads that may be gone.
  void run(int threads, Cancellation* cancellation, void (*body)(void*, Team&), void* context) {
    std::unique_lock<std::mutex> busy(busy_, std::defer_lock);
    if (threads <= 1 || !busy.try_lock() || !grow(threads - 1)) {
      Team::Shared shared;
      shared.cancellation = cancellation;
      run_member(body, context, 0, 1, shared);
      return;
    }
    {
      const std::lock_guard<std::mutex> lock(sleep_);
      job_.body = body;
      job_.context = context;
      job_.size = threads;
      job_.shared.cancellation = cancellation;
      running_.store(threads - 1, std::memory_order_relaxed);
      ticket_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    run_member(body, context, 0, threads, job_.shared);
    for (int spins = 0; running_.load(std::memory_order_acquire) != 0;) {
      ++spins < kSpinsBeforeYield ? pause() : std::this_thread::yield();
    }
  }

 private:
  static void run_member(void (*body)(void*, Team&), void* context, int index, int size, Team::Shared& shared) {
    const FlushDenormals flush;
    Team team(index, size, shared);
    body(context, team);
  }

  // False where the system gives no more threads.
  bool grow(int workers) {
    try {
      while (static_cast<int>(workers_.size()) < workers) {
        const int index = static_cast<int>(workers_.size()) + 1;
        workers_.emplace_back([this, index, seen = ticket_.load()]() mutable { work(index, seen); });
        workers_.back().detach();
      }
    } catch (const std::exception&) {
      return false;
    }
    return true;
  }

  void work(int index, unsigned seen) {
    for (;;) {
      for (int spins = 0; ticket_.load(std::memory_order_acquire) == seen && spins < kSpinsBeforeSleep; ++spins) {
        pause();
      }
      if (ticket_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(sleep_);
        wake_.wait(lock, [&] { return ticket_.load(std::memory_order_acquire) != seen; });
      }
      // A member's job cannot change before that member has counted down. A worker that is not in the team may
      // miss tickets: it takes the newest, under the lock that run() publishes the job with.
      int size;
      {
        const std::lock_guard<std::mutex> lock(sleep_);
        seen = ticket_.load(std::memory_order_acquire);
        size = job_.size;
      }
      if (index >= size) continue;
      run_member(job_.body, job_.context, index, size, job_.shared);
      running_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  std::mutex busy_;
  std::mutex sleep_;
  std::condition_variable wake_;
  std::atomic<unsigned> ticket_{0};
  std::atomic<int> running_{0};
  Job job_;
  std::vector<std::thread> workers_;
};

std::atomic<Pool*> the_pool{nullptr};
std::once_flag pool_once;

Pool& pool() {
  std::call_once(pool_once, [] {
    the_pool.store(new Pool);
    // The child has none of the parent's threads: it starts with a pool of its own.
    pthread_atfork(nullptr, nullptr, [] { the_pool.store(new Pool); });
  });
  return *the_pool.load();
}

int default_threads() {
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const long count = std::strtol(text, nullptr, 10);  // "4,2" (nested levels) means 4 here
    if (count >= 1 && count <= 1024) return static_cast<int>(count);
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::atomic<int>& thread_limit() {
  static std::atomic<int> limit{default_threads()};
  return limit;
}

}  // namespace

void Team::barrier() {
  if (size_ == 1) return;
  const unsigned generation = shared_.generation.load(std::memory_order_acquire);
  if (shared_.arrived.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    shared_.arrived.store(0, std::memory_order_relaxed);
    shared_.generation.store(generation + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; shared_.generation.load(std::memory_order_acquire) == generation;) {
    ++spins < kSpinsBeforeYield ? pause() : std::this_thread::yield();
  }
}

namespace detail {
void run_team(int threads, Cancellation* cancellation, void (*body)(void*, Team&), void* context) {
  pool().run(threads, cancellation, body, context);
}
}  // namespace detail

int num_threads() { return thread_limit().load(); }
void set_num_threads(int count) { thread_limit().store(count); }

}  // namespace fastgru
