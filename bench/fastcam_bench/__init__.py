"""What FastCAM claims, measured: generated scenes with ground truth, the bundled model's training, benchmarks."""
