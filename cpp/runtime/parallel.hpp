// Threads: one pool a process, teams that run one function, and the fixed split of work.
//
// The rule that makes results independent of the number of threads: a team only ever decides *who* computes
// an element, never in which order the terms of one element are added.
//
// Work that falls into independent items is claimed, not dealt out: other threads of the program (PyTorch's, which spin
// for milliseconds after their work) may hold a processor, so that a member starts late or runs at half the speed.
//
// Not OpenMP: two OpenMP runtimes in one process (ours and PyTorch's) fight over cores, and a fork after a
// parallel region hangs in its child. This pool belongs to its process: a forked child builds its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <type_traits>

namespace fastgru {

// What a kernel asks now and then whether its caller still wants the result. `poll` runs on the calling thread
// only, at most every 100 ms, and answers true to stop: a call of less than that never polls.
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

// Independent items of work, claimed one by one by the members of a team: first those of a member's own share, whose
// data the last job may have left in its cache, then what others have not got to. Shares are taken in ascending order.
class Items {
 public:
  enum class Shares {
    contiguous,  // for items of equal work: what a member writes lies together, as rows that Team::share cuts do
    dealt,       // like cards: where items fall in size, all shares do, and the smallest items come last
  };
  explicit Items(std::ptrdiff_t count, Shares shares = Shares::contiguous) : count_(count), cut_(shares) {}

  // body(item), which is noexcept, until none is left to claim; returns when those that others have claimed are done,
  // too. While it waits the caller goes on asking whether it is cancelled: members that work alone do not ask.
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
  struct alignas(64) Share {  // a cache line each
    std::atomic<std::ptrdiff_t> next{0};
  };
  void wait(Team& team) const;

  const std::ptrdiff_t count_;
  const Shares cut_;
  Share shares_[kMostShares];
  alignas(64) std::atomic<std::ptrdiff_t> done_{0};
};

namespace detail {
// Whether a job needs all its members, because they meet at barriers, or gets by with those who come in time.
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

// Runs body(Team&) on `threads` threads, the caller among them, and returns when all have returned. `body` is noexcept.
// Workers flush denormals to zero; the caller must do so, too (denormals.hpp), or its results would differ from theirs.
// If the pool is busy with a job of another thread of the program, the caller runs as a team of one. It does the same
// if the pool sleeps and the job would be done before it is awake (pace.hpp); `operations` is for that estimate:
// roughly how many instructions on whole registers the job takes.
template <class Body>
void parallel(int threads, double operations, Cancellation* cancellation, Body&& body) {
  detail::run_team(threads, detail::Attendance::all, operations, cancellation, body);
}

// The same, without waiting for members that have not begun when the caller is done: `body` does all its work by Items,
// and has no barriers.
template <class Body>
void parallel_items(int threads, double operations, Cancellation* cancellation, Body&& body) {
  detail::run_team(threads, detail::Attendance::optional, operations, cancellation, body);
}

// The most threads a call may use; at first default_threads().
int num_threads();
void set_num_threads(int count);

// OMP_NUM_THREADS where it is set to a number; else the processors that this process may run on, or whose time its
// control group grants it (cpu_quota.hpp, which has `root`), whichever is fewer.
int default_threads(const std::string& root = "");

}  // namespace fastgru
