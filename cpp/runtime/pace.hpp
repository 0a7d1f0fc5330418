// What the pool learns of the machine and the program while it works: how long a sleeping worker takes to begin, how
// long an operation takes, how soon the next job tends to come. They decide when to wake a worker, and how long one
// waits for the next job before it sleeps. Results never depend on them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>

namespace fastgru {

// Follows a quantile of a stream of numbers, within limits: a step up where one is larger, a step down where it is
// smaller. It keeps no history, and one outlier, however far, moves it by one step. Threads may add at the same time;
// then a step is lost.
class RunningQuantile {
 public:
  // Comes to rest where the steps balance: some `share` of the numbers lie below. The limits see to it that it never
  // takes long to come back.
  RunningQuantile(double first, double share, double least, double most)
      : value_(first), up_(1 + kStep * share), down_(1 - kStep * (1 - share)), least_(least), most_(most) {}

  double value() const { return value_.load(std::memory_order_relaxed); }
  void add(double number) {
    const double now = value();
    value_.store(std::clamp(now * (number > now ? up_ : down_), least_, most_), std::memory_order_relaxed);
  }

 private:
  static constexpr double kStep = 0.3;

  std::atomic<double> value_;
  const double up_, down_, least_, most_;
};

class Pace {
 public:
  using Clock = std::chrono::steady_clock;

  // Whether a job is worth waking sleeping workers for. One that meets at barriers takes half its time and the wake-up
  // with two threads: less than alone if it takes longer than two wake-ups.
  bool worth_waking(double operations) const { return operations * operation_.value() > 2 * wake_.value(); }

  // How long a worker that has finished spins before it sleeps: twice as long as nine of ten jobs need to come. Those
  // that come later than `most_spin` count as if they came at once: spinning for them would only cost power.
  std::chrono::nanoseconds spin() const { return nanoseconds(std::clamp(2 * gap_.value(), kLeastSpin, most_spin())); }

  // From the end of a job to the next one.
  void came(Clock::duration gap) {
    const double waited = count(gap);
    gap_.add(waited < most_spin() ? waited : 0);
  }
  // From the first call of a sleeping worker to its beginning.
  void woke(Clock::duration latency) { wake_.add(count(latency)); }
  // A job, in time of all threads that took part.
  void ran(double operations, Clock::duration time) {
    if (operations > 0) operation_.add(count(time) / operations);
  }

 private:
  // In nanoseconds. The first values are those of a virtual machine whose workers sleep deeply.
  static constexpr double kLeastSpin = 20e3, kMostSpin = 200e3, kMostSpinWhereWakingIsSlow = 1e6;

  static double count(Clock::duration time) {
    return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
  }
  static std::chrono::nanoseconds nanoseconds(double count) {
    return std::chrono::nanoseconds(static_cast<std::chrono::nanoseconds::rep>(count));
  }
  // Longer than Python needs between two kernels of a training step, shorter than anybody would notice as load; but at
  // least as long as waking takes, which spinning saves.
  double most_spin() const { return std::clamp(2 * wake_.value(), kMostSpin, kMostSpinWhereWakingIsSlow); }

  RunningQuantile wake_{200e3, 0.5, 1e3, 1e6};
  RunningQuantile operation_{0.4, 0.5, 0.01, 100};
  RunningQuantile gap_{100e3, 0.9, kLeastSpin / 2, kMostSpinWhereWakingIsSlow};
};

}  // namespace fastgru
