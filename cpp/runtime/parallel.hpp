// Threads: one pool a process, teams that run one function, and the fixed split of work.
//
// The rule that makes results independent of the number of threads: a team only ever decides *who* computes
// an element, never in which order the terms of one element are added.
//
// Not OpenMP: two OpenMP runtimes in one process (ours and PyTorch's) fight over cores, and a fork after a
// parallel region hangs in its child. This pool belongs to its process: a forked child builds its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <type_traits>

namespace fastgru {

// What a kernel asks now and then whether its caller still wants the result. `poll` runs on the calling thread
// only, at most every 20 ms, and answers true to stop.
class Cancellation {
 public:
  using Poll = bool (*)();
  explicit Cancellation(Poll poll = nullptr) : poll_(poll), next_(std::chrono::steady_clock::now() + kInterval) {}

  bool requested() const { return requested_.load(std::memory_order_relaxed); }
  void ask() {
    if (poll_ != nullptr && !requested() && std::chrono::steady_clock::now() >= next_) ask_now();
  }

 private:
  static constexpr std::chrono::milliseconds kInterval{20};
  void ask_now();

  Poll poll_;
  std::chrono::steady_clock::time_point next_;
  std::atomic<bool> requested_{false};
};

struct Range {
  std::ptrdiff_t begin, end;
  std::ptrdiff_t size() const { return end - begin; }
};

// Part `index` of `parts` of [0, count): contiguous, sizes differ by at most one.
inline Range split(std::ptrdiff_t count, std::ptrdiff_t index, std::ptrdiff_t parts) {
  return {count * index / parts, count * (index + 1) / parts};
}

// One member of a running team.
class Team {
 public:
  struct Shared {
    std::atomic<int> arrived{0};
    std::atomic<unsigned> generation{0};
    Cancellation* cancellation = nullptr;
  };
  Team(int index, int size, Shared& shared) : Team(index, size, shared, index == 0) {}

  // This member as a team of its own, for work that it does without the others.
  Team alone() const { return Team(0, 1, shared_, is_caller_); }

  int index() const { return index_; }
  int size() const { return size_; }
  Range share(std::ptrdiff_t count) const { return split(count, index_, size_); }

  // Waits until every member has called it. Members must agree on the number of calls, cancelled or not.
  void barrier();

  // False once the call is cancelled: the member then skips its work, but not the barriers.
  bool proceed() {
    if (shared_.cancellation == nullptr) return true;
    if (is_caller_) shared_.cancellation->ask();
    return !shared_.cancellation->requested();
  }

 private:
  Team(int index, int size, Shared& shared, bool is_caller)
      : index_(index), size_(size), shared_(shared), is_caller_(is_caller) {}

  int index_, size_;
  Shared& shared_;
  bool is_caller_;
};

// Runs body(Team&) on `threads` threads, the caller among them, and returns when all have returned. Inside, the
// CPU flushes denormals to zero; the callers' mode is restored. If the pool is at work for another thread of
// the program, the caller runs as a team of one. `body` must not throw.
namespace detail {
void run_team(int threads, Cancellation* cancellation, void (*body)(void*, Team&), void* context);
}
template <class Body>
void parallel(int threads, Cancellation* cancellation, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  detail::run_team(
      threads, cancellation, [](void* context, Team& team) { (*static_cast<Plain*>(context))(team); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// The most threads a call may use. At first: OMP_NUM_THREADS where it is set to a number, else the processors
// this process may run on.
int num_threads();
void set_num_threads(int count);

}  // namespace fastgru
