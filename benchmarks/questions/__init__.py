"""What is asked: one module a question, each with ``run(options, crew)`` that returns a `benchmarks.report.Result`."""
