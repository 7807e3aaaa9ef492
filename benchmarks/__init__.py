"""What training costs, against stock Keras and against what a user would pick instead: `python -m benchmarks`."""
