// oneDNN's two GRU primitives: forward training and backward, or forward inference, with a C interface for onednn.py.
//
// Axes: N rows, T steps, F features, H units; arrays are C-contiguous float32. oneDNN's order of the gates u, r, o is
// Keras' z, r, h, so its weights (I, 3H) ("ldigo") are Keras' unchanged. The bias has 3H elements for vanilla_gru
// (reset_after=False) and 4H for lbr_gru (reset_after=True): u, r, o and the one inside the reset's brackets.
//
// Weights are reordered only once into the format that each primitive prefers, although training would reorder them in
// every step. This favours oneDNN, and so does the missing head and Adam. Backward always computes the input gradient.

#include <cstring>
#include <dnnl.hpp>
#include <memory>
#include <string>
#include <unordered_map>

namespace {

using dnnl::memory;
using Arguments = std::unordered_map<int, memory>;

struct Shape {
  memory::dim rows, steps, features, units;
};

struct Inputs {
  const float* x;          // (T, N, F)
  const float* kernel;     // (F, 3H)
  const float* recurrent;  // (H, 3H)
  const float* bias;       // (3H) or (4H)
  const float* d_state;    // (N, H), the gradient for the last state; null for inference
};

struct Results {
  float* state;     // (N, H)
  float* d_kernel;  // in the layout of the weights; unused in inference
  float* d_recurrent;
  float* d_bias;
};

class Task {
 public:
  virtual ~Task() = default;
  virtual void run(int repeats) = 0;
  virtual void results(const Results& results) = 0;
};

memory::desc plain(const memory::dims& dims, memory::format_tag tag) { return {dims, memory::data_type::f32, tag}; }

template <class Forward, class Backward>
class Gru : public Task {
 public:
  Gru(const Shape& shape, memory::dim biases, const Inputs& inputs)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_), training_(inputs.d_state != nullptr) {
    using tag = memory::format_tag;
    const auto [n, t, f, h] = shape;
    x_ = plain({t, n, f}, tag::tnc);
    h_ = plain({1, 1, n, h}, tag::ldnc);
    y_ = plain({t, n, h}, tag::tnc);
    kernel_ = plain({1, 1, f, 3, h}, tag::ldigo);
    recurrent_ = plain({1, 1, h, 3, h}, tag::ldigo);
    bias_ = plain({1, 1, biases, h}, tag::ldgo);
    const auto any_kernel = plain({1, 1, f, 3, h}, tag::any), any_recurrent = plain({1, 1, h, 3, h}, tag::any);
    const auto kind = training_ ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
    const auto direction = dnnl::rnn_direction::unidirectional_left2right;
    const typename Forward::primitive_desc forward(engine_, kind, direction, x_, h_, any_kernel, any_recurrent, bias_,
                                                   y_, h_);
    forward_ = Forward(forward);

    const memory x = filled(x_, inputs.x), initial = zeros(h_), y = zeros(y_);
    const memory bias = filled(bias_, inputs.bias);
    const memory kernel = filled(kernel_, inputs.kernel), recurrent = filled(recurrent_, inputs.recurrent);
    state_ = zeros(h_);
    forward_arguments_ = {{DNNL_ARG_SRC_LAYER, x},
                          {DNNL_ARG_SRC_ITER, initial},
                          {DNNL_ARG_WEIGHTS_LAYER, reordered(kernel, forward.weights_layer_desc())},
                          {DNNL_ARG_WEIGHTS_ITER, reordered(recurrent, forward.weights_iter_desc())},
                          {DNNL_ARG_BIAS, bias},
                          {DNNL_ARG_DST_LAYER, y},
                          {DNNL_ARG_DST_ITER, state_}};
    if (!training_) return;

    const memory workspace(forward.workspace_desc(), engine_);
    forward_arguments_.emplace(DNNL_ARG_WORKSPACE, workspace);
    const typename Backward::primitive_desc backward(engine_, dnnl::prop_kind::backward, direction, x_, h_, any_kernel,
                                                     any_recurrent, bias_, y_, h_, x_, h_, any_kernel, any_recurrent,
                                                     bias_, y_, h_, forward);
    backward_ = Backward(backward);
    d_kernel_ = zeros(backward.diff_weights_layer_desc());
    d_recurrent_ = zeros(backward.diff_weights_iter_desc());
    d_bias_ = zeros(bias_);
    backward_arguments_ = forward_arguments_;
    backward_arguments_[DNNL_ARG_WEIGHTS_LAYER] = reordered(kernel, backward.weights_layer_desc());
    backward_arguments_[DNNL_ARG_WEIGHTS_ITER] = reordered(recurrent, backward.weights_iter_desc());
    backward_arguments_.insert({{DNNL_ARG_DIFF_SRC_LAYER, zeros(x_)},
                                {DNNL_ARG_DIFF_SRC_ITER, zeros(h_)},
                                {DNNL_ARG_DIFF_WEIGHTS_LAYER, d_kernel_},
                                {DNNL_ARG_DIFF_WEIGHTS_ITER, d_recurrent_},
                                {DNNL_ARG_DIFF_BIAS, d_bias_},
                                {DNNL_ARG_DIFF_DST_LAYER, zeros(y_)},
                                {DNNL_ARG_DIFF_DST_ITER, filled(h_, inputs.d_state)}});
  }

  void run(int repeats) override {
    for (int i = 0; i < repeats; ++i) {
      forward_.execute(stream_, forward_arguments_);
      if (training_) {
        for (const memory& gradient : {d_kernel_, d_recurrent_, d_bias_}) {  // cleared, because backward adds to them
          std::memset(gradient.get_data_handle(), 0, gradient.get_desc().get_size());
        }
        backward_.execute(stream_, backward_arguments_);
      }
    }
    stream_.wait();
  }

  void results(const Results& results) override {
    run(1);
    copy(state_, h_, results.state);
    if (!training_) return;
    copy(d_kernel_, kernel_, results.d_kernel);
    copy(d_recurrent_, recurrent_, results.d_recurrent);
    copy(d_bias_, bias_, results.d_bias);
  }

 private:
  memory zeros(const memory::desc& desc) {
    memory result(desc, engine_);
    std::memset(result.get_data_handle(), 0, desc.get_size());
    return result;
  }

  memory filled(const memory::desc& desc, const float* values) {
    memory result(desc, engine_);
    std::memcpy(result.get_data_handle(), values, desc.get_size());
    return result;
  }

  memory reordered(memory from, const memory::desc& desc) {
    memory to(desc, engine_);
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
    return to;
  }

  void copy(const memory& from, const memory::desc& desc, float* to) {
    std::memcpy(to, reordered(from, desc).get_data_handle(), desc.get_size());
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  bool training_;
  memory::desc x_, h_, y_, kernel_, recurrent_, bias_;
  memory state_, d_kernel_, d_recurrent_, d_bias_;
  dnnl::primitive forward_, backward_;
  Arguments forward_arguments_, backward_arguments_;
};

std::string last_error;

template <class Call>
int guarded(Call call) {
  try {
    call();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

}  // namespace

extern "C" {

// The message of the last call that did not return 0.
const char* gru_error() { return last_error.c_str(); }

int gru_create(void** task, int reset_after, const Shape* shape, const Inputs* inputs) {
  return guarded([&] {
    if (reset_after) {
      *task = static_cast<Task*>(new Gru<dnnl::lbr_gru_forward, dnnl::lbr_gru_backward>(*shape, 4, *inputs));
    } else {
      *task = static_cast<Task*>(new Gru<dnnl::gru_forward, dnnl::gru_backward>(*shape, 3, *inputs));
    }
  });
}

int gru_run(void* task, int repeats) {
  return guarded([&] { static_cast<Task*>(task)->run(repeats); });
}

int gru_results(void* task, const Results* results) {
  return guarded([&] { static_cast<Task*>(task)->results(*results); });
}

int gru_destroy(void* task) {
  return guarded([&] { delete static_cast<Task*>(task); });
}

}  // extern "C"
