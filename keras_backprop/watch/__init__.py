"""What is seen of a training: where the first value that is no number comes from, and findings in words."""
