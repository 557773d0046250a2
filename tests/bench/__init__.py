"""The benchmarks of scripts/bench: snapbreaker beside what people use today, on the same tree, in one run."""
