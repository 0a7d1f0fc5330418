"""The contenders: each module has ``load``, which `serve` calls in a process of its own; tfjs.mjs is one by itself."""
