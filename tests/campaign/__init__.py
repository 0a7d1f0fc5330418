"""The reliability campaign: ``python -m tests.campaign``; docs/reliability.md describes the method.

`plan` lists the tasks and their shares of the time. `scheduler` runs each task in its own process. `run` defines what a
task receives and returns. Every other module is one part of the campaign and has a function ``run(run)``.
"""
