"""What the servers of benchmarks take, written and checked before anything is sent."""
