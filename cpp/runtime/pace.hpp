// Running estimates of the pool: wake-up latency of a worker, time per operation, and time between two jobs. They
// decide when to wake workers and how long an idle worker spins before it sleeps. Results never depend on them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>

namespace fastgru {

// Estimates a quantile of a stream of numbers, within limits. It steps up after a larger number and down after a
// smaller one. It keeps no history, and one outlier moves it by one step only. Concurrent calls may lose a step.
class RunningQuantile {
 public:
  // Converges where `share` of the numbers are smaller: there the steps balance. The limits bound how long it takes
  // to adapt to a change.
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

  // Whether a job is long enough to wake sleeping workers. With two threads, a job with barriers takes half its time
  // plus one wake-up. That is less than on one thread if the job takes longer than two wake-ups.
  bool worth_waking(double operations) const { return operations * operation_.value() > 2 * wake_.value(); }

  // How long an idle worker spins before it sleeps: twice the time within which nine of ten jobs arrive. Gaps longer
  // than `most_spin` count as zero: spinning for them would waste power.
  std::chrono::nanoseconds spin() const { return nanoseconds(std::clamp(2 * gap_.value(), kLeastSpin, most_spin())); }

  // Adds a gap between the end of a job and the next job.
  void came(Clock::duration gap) {
    const double waited = count(gap);
    gap_.add(waited < most_spin() ? waited : 0);
  }
  // Adds a wake-up latency: from the first call of a sleeping worker until it starts.
  void woke(Clock::duration latency) { wake_.add(count(latency)); }
  // Adds a job; `time` is the sum over all threads that took part.
  void ran(double operations, Clock::duration time) {
    if (operations > 0) operation_.add(count(time) / operations);
  }

 private:
  // In nanoseconds. The initial values were measured on a virtual machine with slow wake-ups.
  static constexpr double kLeastSpin = 20e3, kMostSpin = 200e3, kMostSpinWhereWakingIsSlow = 1e6;

  static double count(Clock::duration time) {
    return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
  }
  static std::chrono::nanoseconds nanoseconds(double count) {
    return std::chrono::nanoseconds(static_cast<std::chrono::nanoseconds::rep>(count));
  }
  // Longer than Python takes between two kernels of a training step, and short enough not to show as CPU load. At least
  // two wake-up latencies, because spinning saves a wake-up.
  double most_spin() const { return std::clamp(2 * wake_.value(), kMostSpin, kMostSpinWhereWakingIsSlow); }

  RunningQuantile wake_{200e3, 0.5, 1e3, 1e6};
  RunningQuantile operation_{0.4, 0.5, 0.01, 100};
  RunningQuantile gap_{100e3, 0.9, kLeastSpin / 2, kMostSpinWhereWakingIsSlow};
};

}  // namespace fastgru
