#include "runtime/parallel.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/cpu_quota.hpp"
#include "runtime/denormals.hpp"
#include "runtime/pace.hpp"

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

// Pauses between two reads of the clock. A pause takes 40 cycles on one CPU and 2,000 in a virtual machine on another.
constexpr int kSpinsBetweenLooks = 16;
// Members normally reach a barrier within microseconds. With more threads than processors they take longer: then yield.
constexpr int kSpinsBeforeYield = 1000;

class BlockSignals {
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &saved_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }
  BlockSignals(const BlockSignals&) = delete;
  BlockSignals& operator=(const BlockSignals&) = delete;

 private:
  sigset_t saved_;
};

struct Job {
  detail::TeamBody body = nullptr;
  void* context = nullptr;
  int size = 0;
  std::atomic<int> running{0};  // unfinished members, without the caller
  Team::Shared shared;

  void run_member(int index) noexcept {
    Team team(index, size, shared);
    body(context, team);
  }
};

// A worker thread. Workers beyond a team's size are not woken.
class Worker {
 public:
  explicit Worker(Pace& pace) : pace_(pace) {}

  // Returns false if the worker has started; it then accesses the job once more at its end.
  bool withdraw(Job* job) { return job_.compare_exchange_strong(job, nullptr, std::memory_order_acq_rel); }

  void assign(Job* job, Pace::Clock::time_point now) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (calls_++ == calls_before_sleep_) called_ = now;
      job_.store(job, std::memory_order_release);
    }
    wake_.notify_one();  // a system call only if the worker sleeps
  }

  Job* wait() {
    for (;;) {
      const auto end = Pace::Clock::now() + pace_.spin();
      do {
        for (int spins = 0; spins < kSpinsBetweenLooks; ++spins) {
          if (Job* job = take()) return job;
          pause();
        }
      } while (Pace::Clock::now() < end);
      std::unique_lock<std::mutex> lock(mutex_);
      if (job_.load(std::memory_order_relaxed) == nullptr) {
        calls_before_sleep_ = calls_;
        wake_.wait(lock, [&] { return calls_ != calls_before_sleep_; });
        pace_.woke(Pace::Clock::now() - called_);
      }
      if (Job* job = take()) return job;  // otherwise it was withdrawn; keep spinning, the next job may follow soon
    }
  }

 private:
  Job* take() {
    if (job_.load(std::memory_order_relaxed) == nullptr) return nullptr;
    return job_.exchange(nullptr, std::memory_order_acquire);
  }

  alignas(64) std::atomic<Job*> job_{nullptr};  // own cache line, because the worker spins on it
  alignas(64) std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_. Counts calls, not jobs, because a job may be withdrawn before the worker wakes up.
  unsigned calls_ = 0, calls_before_sleep_ = 0;
  Pace::Clock::time_point called_;  // first call since the worker fell asleep
  Pace& pace_;
};

// Never destroyed, and its threads never joined: interpreter shutdown and fork must not wait for threads that may no
// longer exist.
class Pool {
 public:
  void run(int threads, detail::Attendance attendance, double operations, Cancellation* cancellation,
           detail::TeamBody body, void* context) {
    Job job;
    job.body = body;
    job.context = context;
    job.shared.cancellation = cancellation;
    // Not a mutex, because a signal handler may call a kernel on a thread that is already running one.
    const bool owner = threads > 1 && !busy_.exchange(true, std::memory_order_acquire);
    const auto begin = owner ? Pace::Clock::now() : Pace::Clock::time_point();
    // Workers are still awake after a recent job. If recent jobs follow each other this closely, waking the workers now
    // also helps the next jobs.
    const bool awake = owner && begin - last_end_ < pace_.spin();
    if (owner) pace_.came(begin - last_end_);
    const bool worth_it = awake || (owner && pace_.worth_waking(operations));
    job.size = worth_it && grow(threads - 1) ? threads : 1;
    job.running.store(job.size - 1, std::memory_order_relaxed);
    for (int index = 1; index < job.size; ++index) workers_[static_cast<std::size_t>(index - 1)]->assign(&job, begin);
    job.run_member(0);
    int took_part = job.size;
    if (attendance == detail::Attendance::optional) {
      for (int index = 1; index < job.size; ++index) {
        if (workers_[static_cast<std::size_t>(index - 1)]->withdraw(&job)) {
          job.running.fetch_sub(1, std::memory_order_relaxed);
          --took_part;
        }
      }
    }
    for (int spins = 0; job.running.load(std::memory_order_acquire) != 0;) {
      if (++spins < kSpinsBeforeYield) {
        pause();
      } else {
        if (cancellation != nullptr) cancellation->ask();  // other members may still work for a long time
        std::this_thread::yield();
      }
    }
    if (!owner) return;
    last_end_ = Pace::Clock::now();
    if (job.size == 1 || (awake && shared_last_)) pace_.ran(operations, (last_end_ - begin) * took_part);
    shared_last_ = job.size > 1;
    busy_.store(false, std::memory_order_release);
  }

 private:
  // Returns false if the system cannot create more threads.
  bool grow(int workers) {
    const BlockSignals block;  // inherited by the new threads: the program's own threads handle signals
    try {
      workers_.reserve(static_cast<std::size_t>(workers));  // before a thread starts, so that nothing throws afterwards
      while (static_cast<int>(workers_.size()) < workers) {
        const int index = static_cast<int>(workers_.size()) + 1;
        auto worker = std::make_unique<Worker>(pace_);
        std::thread([index, own = worker.get()] {
          const FlushDenormals flush;
          for (;;) {
            Job* job = own->wait();
            job->run_member(index);
            job->running.fetch_sub(1, std::memory_order_acq_rel);  // last access to job: the caller may return now
          }
        }).detach();
        workers_.push_back(std::move(worker));
      }
    } catch (const std::exception&) {
      return false;
    }
    return true;
  }

  alignas(64) Pace pace_;  // spinning workers read it
  alignas(64) std::atomic<bool> busy_{false};
  // The end of the last job that asked for several threads, and whether it used them. If not, workers may be asleep.
  Pace::Clock::time_point last_end_;
  bool shared_last_ = false;
  std::vector<std::unique_ptr<Worker>> workers_;
};

std::atomic<Pool*> the_pool{nullptr};
std::once_flag pool_once;

Pool& pool() {
  std::call_once(pool_once, [] {
    the_pool.store(new Pool);
    // A forked child has none of the parent's threads, so it creates a new pool.
    pthread_atfork(nullptr, nullptr, [] { the_pool.store(new Pool); });
  });
  return *the_pool.load();
}

std::atomic<int>& thread_limit() {
  static std::atomic<int> limit{default_threads()};
  return limit;
}

}  // namespace

int default_threads(const std::string& root) {
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const long count = std::strtol(text, nullptr, 10);  // "4,2" (nested levels) means 4 here
    if (count >= 1 && count <= 1024) return static_cast<int>(count);
  }
  int processors = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) processors = CPU_COUNT(&set);
  // A container that exceeds its quota is paused for the rest of each period.
  if (const int quota = cpu_quota(root)) processors = std::min(processors, quota);
#endif
  return std::max(1, processors);
}

void Cancellation::ask_now() {
  const FlushDenormals honour(false);  // `poll` may run a signal handler, which is the program's code
  if (poll_()) requested_.store(true, std::memory_order_relaxed);
  next_ = std::chrono::steady_clock::now() + kInterval;
}

void Items::wait(Team& team) const {
  for (int spins = 0; done_.load(std::memory_order_acquire) != count_;) {
    if (++spins < kSpinsBeforeYield) {
      pause();
    } else {
      team.proceed();
      std::this_thread::yield();
    }
  }
}

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
void run_team(int threads, Attendance attendance, double operations, Cancellation* cancellation, TeamBody body,
              void* context) {
  pool().run(threads, attendance, operations, cancellation, body, context);
}
}  // namespace detail

int num_threads() { return thread_limit().load(); }
void set_num_threads(int count) { thread_limit().store(count); }

}  // namespace fastgru
