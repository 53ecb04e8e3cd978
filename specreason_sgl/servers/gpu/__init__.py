"""Planning, starting and checking a pair of servers on NVIDIA GPUs."""
