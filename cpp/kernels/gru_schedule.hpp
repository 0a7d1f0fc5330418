// Who takes which rows, units and steps of a batch: decided once a call, by one constructor, for both directions.
//
//     weights   tape or lengths   rows          who takes what
//     small     yes               -             up to 16 parts, by the shape; a thread takes each through time alone
//     small     no                -             parts by the number of threads; a thread takes each alone
//     large     yes               64 a thread   one part; the threads share the rows of each step
//     large     no                64 a thread   a part for each thread, which takes it alone
//     large     -                 fewer         one part; the threads share the units of each step, if each gets two
//                                               blocks of them; else the rows
//
// A part is cut into groups of rows that go through time together. The gradients of the weights are summed in parts and
// groups, so with a tape both follow from the shape alone. docs/design.md has the glossary.
//
// Rows are taken by falling length, so that in every step those still at work are the first of their group; a row's
// number in that order is its position. What is stored for a step is as many rows as work in it; padding is neither
// computed nor stored. Where all sequences are equally long, positions are the batch's rows.
#pragma once

#include "kernels/cost.hpp"
#include "kernels/gru.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

// Where the sequence at a position lies. By default all are as long as the batch and lie in its order; if they are to
// be read from their ends, the strides of x say so. With lengths, each has an end of its own.
struct SequenceMap {
  const Index* order = nullptr;    // (N) row of the batch at each position, or null: the same
  const Index* lengths = nullptr;  // (N) by position, falling; null if `order` is
  Index steps = 0;                 // T
  bool backwards = false;          // read from the end; only with lengths
  bool outputs_like_x = false;     // an output stands where the step of x stands that it read, not in order

  bool different_lengths() const { return order != nullptr; }
  Index row(Index position) const { return order == nullptr ? position : order[position]; }
  Index length(Index position) const { return order == nullptr ? steps : lengths[position]; }
  Index input_step(Index position, Index step) const { return backwards ? lengths[position] - 1 - step : step; }
  Index output_step(Index position, Index step) const { return outputs_like_x ? input_step(position, step) : step; }
  // Backwards and in x's order padding comes before the sequence: there is no output to repeat.
  bool has_repeated_outputs(Index position) const { return length(position) > 0 && !(backwards && outputs_like_x); }
};

// A group of rows that go through time together.
struct RowGroup {
  Index first, rows;     // positions
  Index steps;           // of its longest sequence
  Index pairs_before;    // pairs of a row and a step in the groups before it
  const Index* offsets;  // (steps + 1) pairs before each step; null where all rows work in all steps

  Index offset(Index step) const { return offsets == nullptr ? step * rows : offsets[step]; }
  Index at_work(Index step) const { return offsets == nullptr ? rows : offsets[step + 1] - offsets[step]; }
  Index pairs() const { return offset(steps); }
  // Where the states before a step lie, in rows: those that began, then after each step those that worked in it.
  Index state_offset(Index step) const { return step == 0 ? 0 : rows + offset(step - 1); }
};

// What one member of a team takes of a group: a share of the rows at work in each step, or of the units.
struct GroupShare {
  RowGroup group;
  Team& team;
  bool by_units;
  bool meets;    // after each stage, because a row's values pass between threads
  Range blocks;  // of units

  Range rows(Index count) const { return by_units ? Range{0, count} : team.share(count); }
  Range rows_at(Index step) const { return rows(group.at_work(step)); }
  Range panels(Index count) const { return by_units ? team.share(count) : Range{0, count}; }
  void meet() const {
    if (meets) team.barrier();
  }
};

class Schedule {
 public:
  template <class T>
  Schedule(const GruShape& s, const SequenceMap& map, const UnitBlocks<T>& blocks, bool taped, Workspace& workspace)
      : map_(map), batch_(s.batch), blocks_(blocks.count) {
    const Index limit = num_threads();
    const Index rows_worth = (batch_ + cost::kRowsWorthAThread - 1) / cost::kRowsWorthAThread;
    const bool by_shape = taped || map.different_lengths();
    if (3 * cost::product(1, s.features + s.units, s.units) * sizeof(T) <= cost::kSmallWeights) {
      const Index parts = parts_by_shape(batch_);
      threads_ = cost::threads_for_parts(by_shape ? parts : rows_worth);
      cut(by_shape ? parts : parts_for(batch_, threads_), cost::kRowsTogether);
    } else if (limit > 1 && batch_ < limit * cost::kRowsWorthAllWeights && blocks_ >= 2 * limit) {
      by_units_ = true;
      threads_ = cost::threads_for_parts(blocks_);
      cut(1, cost::kRowsTogetherLargeWeights);
    } else {
      threads_ = cost::threads_for_parts(rows_worth);
      by_shape ? cut(1, cost::kRowsTogetherLargeWeights) : cut(threads_, cost::kRowsTogether);
      by_rows_ = by_shape;
    }
    if (map.different_lengths()) find_groups(workspace);
  }

  int threads() const { return threads_; }
  Index parts() const { return parts_; }
  Index largest_group() const { return largest_group_; }
  // Whether a thread takes a part through time by itself, whichever is free; else the threads share each step.
  bool alone() const { return !by_units_ && !by_rows_; }
  // Sets of memory for a group: one for each thread, or one that the threads share.
  Index sets() const { return alone() ? threads_ : 1; }
  Index groups_in_part() const { return groups_in_part_; }
  // All pairs of a row and a step.
  Index pairs() const {
    const RowGroup last = group(parts_ - 1, groups_in_part_ - 1);
    return last.pairs_before + last.pairs();
  }

  GroupShare share(Index part, Index index, Team& team) const {
    const RowGroup rows = group(part, index);
    const bool meets = team.size() > 1 && (by_units_ || rows.offsets != nullptr);
    return {rows, team, by_units_, meets, by_units_ ? team.share(blocks_) : Range{0, blocks_}};
  }

  // Runs pack(item) for all items, then part(part, team, member) for all parts, then result(item) for all items. `team`
  // are those who share the part, `member` is the thread's number among all. All are noexcept.
  template <class Pack, class Part, class Result>
  void run(double operations, Cancellation* cancellation, Index packing, Pack&& pack, Part&& part, Index results,
           Result&& result) const {
    if (alone()) {
      // Parts fall in work where sequences lie by falling length.
      Items packings(packing),
          taken(parts_, map_.different_lengths() ? Items::Shares::dealt : Items::Shares::contiguous);
      Items sums(results);
      parallel_items(threads_, operations, cancellation, [&](Team& team) noexcept {
        packings.run(team, pack);
        Team own = team.alone();
        taken.run(team, [&](Index item) noexcept { part(item, own, Index{team.index()}); });
        sums.run(team, result);
      });
      return;
    }
    parallel(threads_, operations, cancellation, [&](Team& team) noexcept {
      const auto each = [&](Index count, const auto& body) {
        const Range own = team.share(count);
        for (Index item = own.begin; item < own.end; ++item) body(item);
        team.barrier();
      };
      each(packing, pack);
      part(Index{0}, team, Index{team.index()});
      if (results == 0) return;
      team.barrier();
      each(results, result);
    });
  }

 private:
  // A power of two. Fixes the order in which gradients are summed.
  static Index parts_by_shape(Index batch) {
    return batch >= 512 ? 16 : batch >= 128 ? 8 : batch >= 32 ? 4 : batch >= 8 ? 2 : 1;
  }
  // For rows that can be cut anywhere: some more parts than threads, but not so small that loading the weights for each
  // costs more than it brings.
  static Index parts_for(Index rows, Index threads) {
    const Index fewest = std::min((rows + threads - 1) / threads, cost::kRowsWorthAPart);
    const Index wanted = std::min((rows + 2 * threads - 1) / (2 * threads), cost::kRowsTogether);
    const Index size = std::max(fewest, wanted);
    return (rows + size - 1) / size;
  }

  void cut(Index parts, Index most_rows) {
    const Index part = (batch_ + parts - 1) / parts;
    parts_ = parts;
    groups_in_part_ = (part + most_rows - 1) / most_rows;
    largest_group_ = (part + groups_in_part_ - 1) / groups_in_part_;
  }
  Range rows(Index part, Index index) const {
    const Range all = split(batch_, part, parts_), own = split(all.size(), index, groups_in_part_);
    return {all.begin + own.begin, all.begin + own.end};
  }
  RowGroup group(Index part, Index index) const {
    if (groups_ != nullptr) return groups_[part * groups_in_part_ + index];
    const Range own = rows(part, index);
    return {own.begin, own.size(), map_.steps, own.begin * map_.steps, nullptr};
  }

  void find_groups(Workspace& workspace) {
    groups_ = workspace.take<RowGroup>(parts_ * groups_in_part_);
    Index pairs = 0;
    for (Index item = 0; item < parts_ * groups_in_part_; ++item) {
      const Range own = rows(item / groups_in_part_, item % groups_in_part_);
      const Index steps = own.size() > 0 ? map_.lengths[own.begin] : 0;
      Index* const offsets = workspace.take<Index>(steps + 1);
      Index working = own.size();
      offsets[0] = 0;
      for (Index step = 0; step < steps; ++step) {
        while (map_.lengths[own.begin + working - 1] <= step) --working;  // the first is longer
        offsets[step + 1] = offsets[step] + working;
      }
      groups_[item] = {own.begin, own.size(), steps, pairs, offsets};
      pairs += offsets[steps];
    }
  }

  const SequenceMap& map_;
  const Index batch_, blocks_;
  int threads_ = 1;
  bool by_units_ = false, by_rows_ = false;  // the threads share each step
  Index parts_ = 1, groups_in_part_ = 1, largest_group_ = 0;
  RowGroup* groups_ = nullptr;  // where lengths differ
};

}  // namespace fastgru
