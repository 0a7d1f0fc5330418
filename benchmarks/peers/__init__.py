"""The contenders: each module has ``load``, which `serve` calls in its own process; tfjs.mjs is a program itself."""
