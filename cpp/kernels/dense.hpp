// A fully connected layer on rows: y = x W + b, and its gradients.
//
//     y (M, C) = x[which] (M, F) kernel (F, C) + bias (C)
//     d_x[which] = d_y kernel^T, 0 elsewhere,    d_kernel = x[which]^T d_y,    d_bias = sum of d_y over M
//
// x and d_x have N rows. `which` selects M of them in ascending order; null selects all. Other rows (padding) are
// neither read nor computed, and the computed rows are contiguous. All matrices are C-contiguous. Outputs are
// overwritten and must not overlap anything. Null means not given, or not wanted. A row's results depend on that row
// alone. The order of sums over M depends on the shape alone. Memory comes from the workspace only. 2 M F C flops per
// product.
#pragma once

#include "kernels/gemm.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

struct DenseShape {
  Index rows;  // M
  Index features, columns;
  Index all_rows;                // N
  const Index* which = nullptr;  // (M,), or null: all N = M
};

template <class T>
void dense_forward(const DenseShape& shape, const T* x, const T* kernel, const T* bias, T* y, Workspace& workspace);

template <class T>
struct DenseBackwardArguments {
  DenseShape shape;
  const T* x;
  const T* kernel;
  const T* d_y;
  T* d_x = nullptr;  // or null
  T* d_kernel;
  T* d_bias = nullptr;  // or null
};

template <class T>
void dense_backward(const DenseBackwardArguments<T>& arguments, Workspace& workspace);

}  // namespace fastgru
