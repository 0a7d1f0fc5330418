"""The contenders: each file is a program that speaks the protocol of `serve`, in a process of its own."""
