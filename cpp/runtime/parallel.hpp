// Threads: one thread pool per process, teams of threads that run one function, and the fixed split of work.
//
// Results do not depend on the number of threads: a team decides only which thread computes an element, never the order
// in which the terms of an element are added.
//
// Threads claim independent items dynamically. Other threads of the program can occupy a processor (PyTorch's spin for
// milliseconds after their work), so that a member of the team starts late or runs at half the speed.
//
// OpenMP is not used for two reasons. Two OpenMP runtimes in one process (ours and PyTorch's) compete for cores. A fork
// after a parallel region hangs in the child. This pool belongs to its process: a forked child creates its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <type_traits>

namespace fastgru {

// Lets a kernel check whether its caller has cancelled the call. `poll` returns true to cancel. It runs on the calling
// thread only, at most every 100 ms, so that shorter calls never poll.
class Cancellation {
 public:
  using Poll = bool (*)() noexcept;
  explicit Cancellation(Poll poll = nullptr) : poll_(poll), next_(std::chrono::steady_clock::now() + kInterval) {}

  bool requested() const { return requested_.load(std::memory_order_relaxed); }
  void ask() {
    if (poll_ != nullptr && !requested() && std::chrono::steady_clock::now() >= next_) ask_now();
  }

 private:
  static constexpr std::chrono::milliseconds kInterval{100};
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

  // A team that has only this member, for work that it does alone.
  Team alone() const { return Team(0, 1, shared_, is_caller_); }

  int index() const { return index_; }
  int size() const { return size_; }
  Range share(std::ptrdiff_t count) const { return split(count, index_, size_); }

  // Waits until every member has called it. All members must make the same number of calls, even if cancelled.
  void barrier();

  // False once the call is cancelled: the member must then skip its work, but not the barriers.
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

// Independent items of work that the members of a team claim one by one. A member first claims the items of its own
// share, because their data may still be in its cache, and then items that other members have not claimed yet. Each
// share is processed in ascending order.
class Items {
 public:
  enum class Shares {
    contiguous,  // for items of equal work: a member writes neighbouring memory, as with Team::share
    dealt,       // round robin: if items get smaller, so do all shares, and the smallest items are claimed last
  };
  explicit Items(std::ptrdiff_t count, Shares shares = Shares::contiguous) : count_(count), cut_(shares) {}

  // Calls the noexcept body(item) until all items are claimed, then waits for the items that other members claimed.
  // While the calling thread waits it polls for cancellation, because members that work alone do not.
  template <class Body>
  void run(Team& team, Body&& body) {
    static_assert(std::is_nothrow_invocable_v<Body&, std::ptrdiff_t>,
                  "an item's body must be noexcept: one that threw would never be counted as done");
    const int shares = team.size() < kMostShares ? team.size() : kMostShares;
    std::ptrdiff_t done = 0;
    for (int other = 0; other < shares; ++other) {
      const int share = (team.index() + other) % shares;
      const bool dealt = cut_ == Shares::dealt;
      const Range whole = dealt ? Range{share, count_} : split(count_, share, shares);
      const std::ptrdiff_t stride = dealt ? shares : 1;
      const auto claim = [&] {
        return whole.begin + stride * shares_[share].next.fetch_add(1, std::memory_order_relaxed);
      };
      for (std::ptrdiff_t item; (item = claim()) < whole.end; ++done) body(item);
    }
    if (done > 0) done_.fetch_add(done, std::memory_order_acq_rel);
    wait(team);
  }

 private:
  static constexpr int kMostShares = 16;
  struct alignas(64) Share {  // one cache line each
    std::atomic<std::ptrdiff_t> next{0};
  };
  void wait(Team& team) const;

  const std::ptrdiff_t count_;
  const Shares cut_;
  Share shares_[kMostShares];
  alignas(64) std::atomic<std::ptrdiff_t> done_{0};
};

namespace detail {
// Whether a job needs all its members, because it has barriers, or runs with those that start in time.
enum class Attendance { all, optional };

using TeamBody = void (*)(void*, Team&) noexcept;

void run_team(int threads, Attendance attendance, double operations, Cancellation* cancellation, TeamBody body,
              void* context);

template <class Body>
void run_team(int threads, Attendance attendance, double operations, Cancellation* cancellation, Body& body) {
  static_assert(
      std::is_nothrow_invocable_v<Body&, Team&>,
      "a parallel body must be noexcept: one that threw would leave the team at its barriers and the pool busy");
  run_team(
      threads, attendance, operations, cancellation,
      [](void* context, Team& team) noexcept { (*static_cast<Body*>(context))(team); }, &body);
}
}  // namespace detail

// Runs body(Team&) on `threads` threads, including the calling thread, and returns when all have returned. `body` must
// be noexcept. Workers flush denormals to zero; the caller must do the same (denormals.hpp), or its results differ.
// The caller runs as a team of one in two cases: another thread of the program uses the pool, or the workers sleep and
// the job would finish before they wake up (pace.hpp). `operations` is for that estimate: roughly the number of SIMD
// instructions of the job.
template <class Body>
void parallel(int threads, double operations, Cancellation* cancellation, Body&& body) {
  detail::run_team(threads, detail::Attendance::all, operations, cancellation, body);
}

// Like `parallel`, but does not wait for members that have not started when the caller is done. `body` must do all its
// work through Items and must not use barriers.
template <class Body>
void parallel_items(int threads, double operations, Cancellation* cancellation, Body&& body) {
  detail::run_team(threads, detail::Attendance::optional, operations, cancellation, body);
}

// The maximum number of threads per call; initially default_threads().
int num_threads();
void set_num_threads(int count);

// OMP_NUM_THREADS if it is set to a number. Otherwise the smaller of the processors that this process may run on and
// its CPU quota (cpu_quota.hpp, which explains `root`).
int default_threads(const std::string& root = "");

}  // namespace fastgru
