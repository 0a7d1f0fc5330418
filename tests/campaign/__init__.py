"""The reliability campaign: ``python -m tests.campaign``; docs/reliability.md describes the method.

`plan` lists the tasks and their shares of the time, `scheduler` runs each one in a process of its own, `run` is what a
task gets and returns. Every other module is one part of the campaign and has a function ``run(run)``.
"""
