"""The tables of README and docs, one function each, from benchmarks/results/*.json."""
