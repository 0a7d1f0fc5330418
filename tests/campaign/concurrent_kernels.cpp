// Kernels and thread pool without Python, for ThreadSanitizer. Several threads call forward, backward, the dense layer
// and an optimizer at the same time. Threads start and end, and the number of the pool's threads changes meanwhile.
//
//     concurrent_kernels SECONDS
//
// Every result must be bit-identical to one that was computed before the threads started. Prints the number of calls;
// the exit status is 1 if a result differs. sanitizers.py builds and runs the program.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "kernels/dense.hpp"
#include "kernels/gru_backward.hpp"
#include "kernels/gru_forward.hpp"
#include "kernels/optimizers.hpp"
#include "runtime/denormals.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"

namespace {

using fastgru::Index;

constexpr int kCallers = 3;
constexpr int kMostThreads = 3;
constexpr int kCallsOfAThread = 5;

// A GRU forward and backward, a dense layer on its outputs and an update of its weights, with separate memory.
template <class T>
class Work {
 public:
  // `lengths`: sequences of different lengths, read from their ends.
  Work(fastgru::GruShape shape, bool reset_after, bool lengths) : shape_(shape) {
    options_.reset_after = reset_after;
    const Index rows = shape.batch, gates = 3 * shape.units, cells = rows * shape.steps;
    x_ = numbers(cells * shape.features);
    kernel_ = numbers(shape.features * gates);
    recurrent_ = numbers(shape.units * gates);
    bias_ = numbers(2 * gates);
    d_outputs_ = numbers(cells * shape.units);
    pairs_ = cells;
    if (!lengths) return;
    for (Index row = 0; row < rows; ++row) lengths_.push_back(shape.steps - row * shape.steps / rows);  // descending
    order_.resize(lengths_.size());
    std::iota(order_.begin(), order_.end(), Index{0});
    pairs_ = std::accumulate(lengths_.begin(), lengths_.end(), Index{0});
  }

  // All results, concatenated; empty if the call was cancelled.
  std::vector<T> run(fastgru::Cancellation* cancellation) const {
    const Index rows = shape_.batch, units = shape_.units, gates = 3 * units;
    std::vector<T> outputs(size(rows * shape_.steps * units)), state(size(rows * units));
    const fastgru::UnitBlocks<T> blocks(units, options_.reset_after);
    std::vector<T> tape_gates(size(fastgru::GruTape<T>::gates_size(pairs_, blocks)) + kAlign);
    std::vector<T> tape_states(size(fastgru::GruTape<T>::states_size(pairs_, rows, blocks)) + kAlign);

    fastgru::GruForwardArguments<T> forward;
    forward.shape = shape_;
    forward.options = options_;
    forward.parameters = {fastgru::WeightLayout::keras, kernel_.data(), recurrent_.data(), bias_.data(),
                          bias_.data() + gates};
    forward.x = {x_.data(), shape_.steps * shape_.features, shape_.features};
    forward.sequences = map();
    forward.outputs = {outputs.data(), shape_.steps * units, units};
    forward.last_state = state.data();
    forward.tape = {aligned(tape_gates), aligned(tape_states)};
    {
      fastgru::BorrowedWorkspace workspace;
      fastgru::gru_forward(forward, *workspace, cancellation);
    }

    std::vector<T> d_x(x_.size()), d_initial(size(rows * units)), d_kernel(kernel_.size());
    std::vector<T> d_recurrent(recurrent_.size()), d_bias(bias_.size());
    fastgru::GruBackwardArguments<T> backward;
    backward.shape = shape_;
    backward.options = options_;
    backward.parameters = forward.parameters;
    backward.x = forward.x;
    backward.sequences = forward.sequences;
    backward.tape = forward.tape;
    backward.d_outputs = {d_outputs_.data(), shape_.steps * units, units};
    backward.d_x = {d_x.data(), shape_.steps * shape_.features, shape_.features};
    backward.d_initial_state = d_initial.data();
    backward.d_weights = {d_kernel.data(), d_recurrent.data(), d_bias.data(), d_bias.data() + gates};
    {
      fastgru::BorrowedWorkspace workspace;
      fastgru::gru_backward(backward, *workspace, cancellation);
    }
    if (cancellation != nullptr && cancellation->requested()) return {};

    // A dense layer on the state, whose kernel is the first columns of the recurrent kernel, and an update.
    std::vector<T> y(size(rows * gates)), d_dense(size(units * gates)), moment(kernel_.size()), updated = kernel_;
    std::vector<T> moment_2(kernel_.size());
    {
      fastgru::BorrowedWorkspace workspace;
      const fastgru::DenseShape dense{rows, units, gates, rows, nullptr};
      fastgru::dense_forward(dense, state.data(), recurrent_.data(), static_cast<const T*>(nullptr), y.data(),
                             *workspace);
      fastgru::DenseBackwardArguments<T> arguments{dense,          state.data(), recurrent_.data(), y.data(), nullptr,
                                                   d_dense.data(), nullptr};
      fastgru::dense_backward(arguments, *workspace);
    }
    fastgru::FlatBuffers<T> buffers{
        static_cast<Index>(updated.size()), updated.data(), d_kernel.data(), {moment.data(), moment_2.data(), nullptr}};
    fastgru::adam(buffers, fastgru::AdamSettings{1, 1e-3, 0.9, 0.999, 1e-7, 0.0, fastgru::AdamForm::keras});

    std::vector<T> all;
    for (const auto* results :
         {&outputs, &state, &d_x, &d_initial, &d_kernel, &d_recurrent, &d_bias, &y, &d_dense, &updated}) {
      all.insert(all.end(), results->begin(), results->end());
    }
    return all;
  }

 private:
  static constexpr std::size_t kAlign = fastgru::kAlignment / sizeof(T);

  static std::size_t size(Index count) { return static_cast<std::size_t>(count); }
  static T* aligned(std::vector<T>& memory) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return reinterpret_cast<T*>((address + fastgru::kAlignment - 1) / fastgru::kAlignment * fastgru::kAlignment);
  }
  static std::vector<T> numbers(Index count) {
    std::mt19937 generator(static_cast<unsigned>(count));
    std::uniform_real_distribution<T> uniform(T(-0.2), T(0.2));
    std::vector<T> values(size(count));
    for (T& value : values) value = uniform(generator);
    return values;
  }
  fastgru::SequenceMap map() const {
    if (lengths_.empty()) return {nullptr, nullptr, shape_.steps, false, false};
    return {order_.data(), lengths_.data(), shape_.steps, true, true};
  }

  fastgru::GruShape shape_;
  fastgru::GruOptions options_;
  std::vector<T> x_, kernel_, recurrent_, bias_, d_outputs_;
  std::vector<Index> lengths_, order_;
  Index pairs_;
};

// Small and large weights, split by rows and by units, few and many rows, both forms, lengths.
template <class T>
std::vector<Work<T>> works() {
  std::vector<Work<T>> all;
  all.emplace_back(fastgru::GruShape{40, 5, 4, 17}, true, false);
  all.emplace_back(fastgru::GruShape{9, 6, 5, 33}, false, true);
  all.emplace_back(fastgru::GruShape{150, 3, 3, 8}, true, true);
  all.emplace_back(fastgru::GruShape{3, 2, 5, 225}, true, false);
  all.emplace_back(fastgru::GruShape{70, 2, 30, 230}, false, false);
  return all;
}

bool stop() noexcept { return true; }
bool go_on() noexcept { return false; }

std::atomic<bool> different{false};
std::atomic<long> calls{0};

template <class T>
void call(const std::vector<Work<T>>& all, const std::vector<std::vector<T>>& expected, unsigned seed) {
  const fastgru::FlushDenormals flush;  // like the bindings
  std::mt19937 generator(seed);
  for (int number = 0; number < kCallsOfAThread; ++number) {
    const std::size_t which = generator() % all.size();
    // Some calls are cancelled, and before some the pool has fallen asleep.
    fastgru::Cancellation cancellation(generator() % 4 == 0 ? stop : go_on);
    const std::vector<T> results = all[which].run(&cancellation);
    if (!results.empty() && std::memcmp(results.data(), expected[which].data(), results.size() * sizeof(T)) != 0) {
      different = true;
    }
    calls.fetch_add(1);
    if (generator() % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

int main(int count, char** arguments) {
  const double seconds = count > 1 ? std::atof(arguments[1]) : 5.0;
  const fastgru::FlushDenormals flush;
  const auto floats = works<float>();
  const auto doubles = works<double>();
  fastgru::set_num_threads(1);
  std::vector<std::vector<float>> expected_floats;
  std::vector<std::vector<double>> expected_doubles;
  for (const auto& work : floats) expected_floats.push_back(work.run(nullptr));
  for (const auto& work : doubles) expected_doubles.push_back(work.run(nullptr));

  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (unsigned round = 0; std::chrono::steady_clock::now() < end; ++round) {
    std::vector<std::thread> callers;
    for (unsigned caller = 0; caller < kCallers; ++caller) {
      callers.emplace_back([&, seed = round * kCallers + caller] {
        if (seed % 2 == 0) {
          call(floats, expected_floats, seed);
        } else {
          call(doubles, expected_doubles, seed);
        }
      });
    }
    for (int change = 0; change < 4 * kMostThreads; ++change) {
      fastgru::set_num_threads(1 + change % kMostThreads);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    for (std::thread& caller : callers) caller.join();
  }
  std::printf("%ld calls%s\n", calls.load(), different ? ", DIFFERENT BITS" : "");
  return different ? 1 : 0;
}
