"""The questions: one module each, with ``run(options, crew)`` that returns a `benchmarks.report.Result`."""
